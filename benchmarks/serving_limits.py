"""What happens at the limits: streams that nobody reads, far more clients than places, a process that is killed."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import (
    Figure,
    at_least,
    at_most,
    nearest_rank,
    open_sockets,
    peak_mib,
    processor_seconds,
    reset_peak,
    resident_mib,
)
from benchmarks.serving_scene import ENDLESS, OPEN_SECONDS, WIDE, Scene, Served, streaming
from models.folded import MOST_TRIED_ROWS
from tests.system.harness import kill

BUFFER_KIB = 64.0
REFUSAL_BAR, GROWTH_BAR, AGAIN_BAR = 1.0, 200.0, 5.0
"""Seconds, MiB, seconds."""
SEEDS = 16
"""Among the clients that come at once: a text is known by its seed from a run alone."""
APART_CHARACTERS = 64
"""One stream ends so many characters after the other: more than the engine writes at once."""
FINISH_SECONDS = 120.0
RUNNING_SECONDS = 0.5
AGAIN_SECONDS = 60.0
RESTING_SECONDS, RESTING_SHARE = 0.5, 0.02
"""A generation process that computed less of the time has nothing to write."""


def unread_streams(scene: Scene) -> Iterator[Figure]:
    """Memory of streams that were opened, written as far as they may be, and set aside.

    To be measured before anything else is: memory that others have used and given back would be used again.
    """
    service, number = scene.service, scene.size.unread
    _see_every_number_of_rows(scene)
    before = _resident(service)
    with streaming(scene.crowd, service.port, number, model=WIDE, reads=False, endless=False):
        at_rest = _wait_for_rest(service.generation_pid, scene.size.unread_seconds)
        still_open = open_sockets(service.pid)
        grown = [1024 * (now - then) / number for now, then in zip(_resident(service), before, strict=True)]
    state = scene.size.unread_hidden * 4 * 2 / 1024  # float32; hidden and cell
    assert still_open >= number, f"of {number} streams at most {still_open} were open when they were measured"
    kib = sum(grown)
    value = f"{kib:.1f} KiB: service {grown[0]:.1f}, generation process {grown[1]:.1f}"
    beside = f"state {state:.1f} KiB + {BUFFER_KIB:.0f} KiB: {at_most(kib, state + BUFFER_KIB, ' KiB', 1)}"
    if not at_rest:
        beside = f"still filling after {scene.size.unread_seconds:.0f} s; {beside}"
    yield Figure(f"memory for each of {number} streams that nobody reads", value, beside)


def _see_every_number_of_rows(scene: Scene) -> None:
    """Streams that end one after the other. oneDNN keeps a megabyte or less for every number of rows that it has
    multiplied, which no stream is to be charged with."""
    rows = range(min(MOST_TRIED_ROWS, scene.size.unread))
    requests = [{"model": WIDE, "max_characters": APART_CHARACTERS * (row + 1)} for row in rows]
    _read_all(scene, scene.service, requests)


def _read_all(scene: Scene, served: Served, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How each of these streams went, all of them asked for at once."""
    question = {"do": "open", "requests": requests, "accept": "text/plain", "seconds": OPEN_SECONDS, "keeps": True}
    scene.crowd(question | {"port": served.port})
    told: list[dict[str, Any]] = scene.crowd({"do": "finish", "seconds": FINISH_SECONDS})
    return told


def _resident(served: Served) -> tuple[float, float]:
    return resident_mib(served.pid), resident_mib(served.generation_pid)


def _wait_for_rest(pid: int, seconds: float) -> bool:
    """Whether the process came to rest in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = processor_seconds(pid)
        time.sleep(RESTING_SECONDS)
        if processor_seconds(pid) - before <= RESTING_SHARE * RESTING_SECONDS:
            return True
    return False


def crowd_at_once(scene: Scene) -> Iterator[Figure]:
    """Far more clients than places: some are served as if they were alone, the others are told so at once."""
    served, size = scene.usual, scene.size
    texts = [{"model": "lstm", "max_characters": size.client_characters, "seed": seed} for seed in range(SEEDS)]
    alone = [hashlib.sha256(served.write(**text)).hexdigest() for text in texts]
    before = sum(_resident(served))
    for pid in (served.pid, served.generation_pid):
        reset_peak(pid)
    told = _read_all(scene, served, [texts[number % SEEDS] for number in range(size.clients)])
    grown = peak_mib(served.pid) + peak_mib(served.generation_pid) - before
    name = f"{size.clients:,} clients at once"
    yield _admitted(name, told, alone)
    yield _refused(name, told)
    yield Figure(f"{name}: growth of resident memory", f"{grown:.0f} MiB", at_most(grown, GROWTH_BAR, " MiB", 0))


def _admitted(name: str, told: list[dict[str, Any]], alone: list[str]) -> Figure:
    admitted = [(number, one) for number, one in enumerate(told) if one["status"] == 200]
    right = sum(one["complete"] and one["sha256"] == alone[number % SEEDS] for number, one in admitted)
    dropped = sum(one["status"] not in (200, 429) for one in told)
    bar = "met" if right == len(admitted) and not dropped else "missed"
    value = f"{right} of {len(admitted)} whole and as alone; {dropped} clients dropped"
    return Figure(f"{name}: admitted", value, f"all whole, none dropped: {bar}")


def _refused(name: str, told: list[dict[str, Any]]) -> Figure:
    refused = [one for one in told if one["status"] == 429]
    if not refused:
        return Figure(f"{name}: refused", "none", "there were places for all")
    seconds = nearest_rank([one["answered_seconds"] for one in refused], 0.99)
    advised = sum(one["retry_after"] is not None for one in refused)
    value = f"{len(refused)} with 429, {advised} with Retry-After, 99 % within {seconds:.2f} s"
    beside = at_most(seconds if advised == len(refused) else None, REFUSAL_BAR, " s", 0)
    return Figure(f"{name}: refused", value, beside)


def killed(scene: Scene) -> Iterator[Figure]:
    """`kill -9` of the generation process under all streams. To be measured last."""
    service, streams = scene.service, scene.size.streams
    fields = {"model": "lstm", "max_characters": ENDLESS}
    question = {"do": "open", "accept": "text/event-stream", "seconds": OPEN_SECONDS, "keeps": True}
    scene.crowd(question | {"requests": [fields] * streams, "port": service.port})
    time.sleep(RUNNING_SECONDS)
    kill(service.generation_pid)
    fields = {"model": "lstm", "max_characters": 1}
    again = scene.prober({"do": "served", "port": service.port, "fields": fields, "seconds": AGAIN_SECONDS})
    told = scene.crowd({"do": "finish", "seconds": AGAIN_SECONDS})
    ended = sum(one["complete"] and "event: error\n" in one["end"] for one in told)
    name = "kill -9 of the generation process"
    bar = at_least(ended, streams, digits=0)
    yield Figure(f"{name}: streams that end with `event: error`", f"{ended} of {streams}", bar)
    value = "none" if again is None else f"{again:.1f} s"
    yield Figure(f"{name}: a new stream's first character", value, at_most(again, AGAIN_BAR, " s", 0))
