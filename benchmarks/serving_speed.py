"""How fast text comes over HTTP: in all, its first character, and after a long prompt.

What is compared is measured in turns. Every figure is what a client sees.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.figures import Figure, at_least, at_most, nearest_rank, processor_seconds
from benchmarks.serving_scene import ALPHABET, Pace, Scene, Served, pace, paced, streaming
from benchmarks.upload import words
from models.config import Cell
from tests.system.harness import wait_for

ENGINE_BAR, PLAIN_BAR = 60.0, 50.0
"""Percent of the engine alone; times the plain loop."""
FIRST_BAR, FIRST_BAR_TRAINING = 50.0, 250.0
LAG_BAR = 20.0
PRIMING_BARS: dict[Cell, float] = {"lstm": 2.0, "gru": 1.0, "rnn_tanh": 1.0}
OTHERS, PACE_BAR = 8, 50.0
TAIL = 0.99
SETTLE_SECONDS = 0.2
"""After streams have begun: all rows write, and the buffers are as full as they get."""
TRAINING_SECONDS = 120.0
"""Within which a training must have begun."""
CORES = os.cpu_count() or 1


def throughput(scene: Scene) -> Iterator[Figure]:
    """All streams over HTTP, the engine alone, the plain loop; and who used the processor."""
    turns = [_turn(scene) for _ in range(scene.size.rounds)]
    ours = statistics.median(turn.ours.characters_per_second for turn in turns)
    engine = statistics.median(turn.engine for turn in turns)
    share = 100 * statistics.median(turn.ours.characters_per_second / turn.engine for turn in turns)
    clients = f"{scene.size.streams} clients over HTTP"
    beside = f"engine alone, {scene.size.streams} rows: {engine:,.0f}; {at_least(share, ENGINE_BAR, ' %', 0)}"
    yield Figure(clients, f"{ours:,.0f} characters/s, {share:.0f} % of the engine's", beside)
    yield Figure(f"{clients}: who computes", _shares(turns), f"of {CORES} cores")
    plain = [turn.plain.characters_per_second for turn in turns if turn.plain]
    if plain:
        times = ours / statistics.median(plain)
        beside = f"plain loop: {statistics.median(plain):,.0f} characters/s; {at_least(times, PLAIN_BAR, 'x', 0)}"
        yield Figure(clients, f"{times:.0f}x the plain loop with a thread for each", beside)


class Turn(NamedTuple):
    """One after the other, so that they meet the same machine."""

    engine: float
    """Characters per second of the engine alone."""
    ours: Pace
    computing: dict[str, float]
    """Cores that each of our processes used meanwhile."""
    plain: Pace | None


def _turn(scene: Scene) -> Turn:
    size = scene.size
    engine = scene.engine(size.turn_seconds)
    with streaming(scene.crowd, scene.service.port, size.streams):
        time.sleep(SETTLE_SECONDS)
        with _computing(scene.service) as computing:
            ours = pace(scene.crowd, size.turn_seconds)
    plain = None
    if scene.plain_port is not None:
        with streaming(scene.crowd, scene.plain_port, size.streams):
            plain = pace(scene.crowd, size.turn_seconds)
    return Turn(engine, ours, computing | {"clients": ours.processors}, plain)


@contextlib.contextmanager
def _computing(served: Served) -> Iterator[dict[str, float]]:
    """Cores that the service and its generation process use while the block runs: there once it has ended."""
    used: dict[str, float] = {}
    pids = {"service": served.pid, "generation process": served.generation_pid}
    began, before = time.perf_counter(), {name: processor_seconds(pid) for name, pid in pids.items()}
    yield used
    seconds = time.perf_counter() - began
    used.update({name: (processor_seconds(pid) - before[name]) / seconds for name, pid in pids.items()})


def _shares(turns: Sequence[Turn]) -> str:
    """What part of the whole machine each process took."""
    medians = {name: statistics.median(turn.computing[name] for turn in turns) for name in turns[0].computing}
    return ", ".join(f"{name} {100 * cores / CORES:.0f} %" for name, cores in medians.items())


def lag(scene: Scene) -> Iterator[Figure]:
    """An upper bound of how long the service's event loop lets anyone wait."""
    idle = _pings(scene)
    with streaming(scene.crowd, scene.service.port, scene.size.streams):
        loaded = _pings(scene)
    name = f"answer of /healthz, {scene.size.streams} streams running, 99 %"
    bar = at_most(loaded, LAG_BAR, " ms", 0)
    yield Figure(name, f"{loaded:.1f} ms", f"idle {idle:.1f} ms; event loop's lag {bar}")


def _pings(scene: Scene) -> float:
    question = {"do": "ping", "port": scene.service.port, "seconds": scene.size.ping_seconds}
    return 1000 * nearest_rank(scene.prober(question), TAIL)


def first_character(scene: Scene) -> Iterator[Figure]:
    """Of a stream that comes while others run; and beside a training."""
    others = scene.size.streams - 1
    with streaming(scene.crowd, scene.service.port, others):
        yield _first(scene, f"first character, {others} others running", FIRST_BAR)
        if scene.size.training:
            with _training(scene.service):
                yield _first(scene, f"first character, {others} others running and a training", FIRST_BAR_TRAINING)


def _first(scene: Scene, name: str, bar: float) -> Figure:
    taken = [1000 * seconds for seconds in _waited(scene, "lstm", 0, times=scene.size.probes)]
    tail, median = nearest_rank(taken, TAIL), statistics.median(taken)
    value = f"99 %: {tail:.1f} ms, median {median:.1f} ms, longest {max(taken):.1f} ms"
    return Figure(name, value, f"of {len(taken)}; {at_most(tail, bar, ' ms', 0)}")


@contextlib.contextmanager
def _training(served: Served) -> Iterator[None]:
    """A job with a budget of an hour, training since a few steps, until the block ends."""
    installation = served.installation
    installation.upload(words(), "words")
    answer = served.http.post("/jobs", json={"corpus": "words", "training": {"minutes": 60}})
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    try:
        wait_for("the training", lambda: installation.job(job)["progress"]["step"] or None, TRAINING_SECONDS)
        yield
    finally:
        served.http.post(f"/jobs/{job}/cancel")
    installation.wait_for_status(job, "cancelled")


def long_prompts(scene: Scene) -> Iterator[Figure]:
    """Reading one, for each cell; the same one again; and what others keep of their pace meanwhile."""
    characters = scene.size.prompt_characters
    prompt = f"prompt of {characters:,}"
    for number, cell in enumerate(scene.size.cells):
        name = f"{cell}, {prompt}"
        with streaming(scene.crowd, scene.service.port, 1, model=cell):
            time.sleep(SETTLE_SECONDS)
            sampling = pace(scene.crowd, scene.size.turn_seconds).characters_per_second
        (seconds,) = _waited(scene, cell, characters, seed=number)
        times = characters / seconds / sampling
        value = f"{characters / seconds:,.0f} characters/s, {times:.1f}x sampling"
        beside = f"one stream samples {sampling:,.0f}; {at_least(times, PRIMING_BARS[cell], 'x', 0)}"
        yield Figure(f"{name}, alone: priming", value, beside)
        if cell == "lstm":
            (again,) = _waited(scene, cell, characters, seed=number)
            value = f"first {seconds:.2f} s, again {1000 * again:.0f} ms"
            yield Figure(f"{name}: time to the first character", value, "no bar")
            yield _kept(scene, name)


def _kept(scene: Scene, name: str) -> Figure:
    with streaming(scene.crowd, scene.service.port, OTHERS):
        time.sleep(SETTLE_SECONDS)
        before = pace(scene.crowd, scene.size.turn_seconds).characters_per_second
        with paced(scene.crowd) as during:
            (seconds,) = _waited(scene, "lstm", scene.size.prompt_characters, seed=-1)
    kept = 100 * during[0].characters_per_second / before
    value = f"{kept:.0f} % of {before:,.0f} characters/s, for {seconds:.2f} s"
    return Figure(f"{name}: pace that {OTHERS} others keep", value, at_least(kept, PACE_BAR, " %", 0))


def _waited(scene: Scene, model: str, prompt_characters: int, *, times: int = 1, seed: int = 0) -> list[float]:
    """Seconds to the first character, of one request after another. Another seed: other prompts."""
    question = {
        "do": "first",
        "port": scene.service.port,
        "fields": {"model": model, "max_characters": 1},
        "times": times,
        "prompt_characters": prompt_characters,
        "alphabet": ALPHABET,
        "seed": seed,
    }
    taken: list[float] = scene.prober(question)
    return taken
