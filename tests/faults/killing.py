"""`python -m tests.faults.killing`: kills everything, in three sizes, and writes down what came of it.

The short form is what `make test` runs (in files beside this one), the middle form is for `.ci/run`, the full form is
`make test-faults`. A part ends at its first fault, with seed, cycle and the last words of all programs; the others are
run all the same. The exit status is 1 then, and no figures are written.
"""

import argparse
import datetime
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from app.fault_points import POINTS
from benchmarks.figures import Report
from tests.faults.claiming import race
from tests.faults.lives import die_at, draw_passing, places, quick_folder, undisturbed
from tests.faults.siege import SERVICE_PLACES, WORKER_PLACES, Outcome, besiege, plan
from tests.faults.signals import GRACE_SECONDS, ask_to_stop, freeze, take_over

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- killing -->\n", "<!-- end of killing -->\n"
TAKEOVER_SECONDS = 15.0
PLACES = len(SERVICE_PLACES) + len(WORKER_PLACES)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything. No cycle of the siege begins after `siege_seconds`."""

    lives: int
    workers: tuple[int, ...]
    rounds: int
    random_kills: int
    siege_seconds: float
    stops: int
    freezes: int
    takeovers: int
    waiting: int = 4
    claimed: int = 500


SIZES = {
    "short": Size(0, (8,), 0, 5, 20, 0, 1, 0, waiting=2),
    "middle": Size(1, (2, 8), 1, 30, 120, 3, 1, 1),
    "full": Size(20, (2, 3, 4, 6, 8), 20, 1000, float("inf"), 100, 20, 20),
}
FEWEST_DEATHS = 5
"""Of a siege that ran out of time, or it says nothing."""
PARTS = ("lives", "claims", "siege", "stops", "freezes", "takeovers")

Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asks for."""

    size: Size
    seed: int
    cycle: str | None
    places: tuple[str, ...] = ()
    """Of the siege: these alone, each as often as the size says. None: all of them."""


def measure_lives(order: Order) -> list[Row]:
    draw = random.Random(order.seed)
    with tempfile.TemporaryDirectory(dir=quick_folder()) as made:
        expected = undisturbed(Path(made))
        drawn = [(name, draw_passing(expected, draw, name)) for name in places() for _ in range(order.size.lives)]
        for name, nth in drawn:
            die_at(Path(made), expected, name, nth)
    told = f"{len(drawn)} lives, {len(places())} places {order.size.lives} times each"
    return [("a life at the store killed at a named place, then lived on", told, "0 lost, 0 twice, contents equal")]


def measure_claims(order: Order) -> list[Row]:
    rows = []
    for workers in order.size.workers:
        with tempfile.TemporaryDirectory(dir=quick_folder()) as made:
            claims = race(Path(made), workers, order.size.claimed)
        rows.append((f"{workers} workers at one queue", f"{claims} claims of {order.size.claimed} jobs", "each once"))
    return rows


def measure_siege(order: Order) -> list[Row]:
    cycles = plan(order.seed, rounds=order.size.rounds, random_kills=order.size.random_kills)
    if order.places:
        cycles = [one for one in cycles if not one.place or one.place in order.places]
    if order.cycle is not None:
        cycles = [one for one in cycles if f"{one.lane}:{one.number}" == order.cycle]
        if not cycles:
            raise AssertionError(f"no cycle {order.cycle} in this size: they are service:N and worker:N")
    with tempfile.TemporaryDirectory() as made:
        outcome = besiege(
            Path(made), order.seed, cycles, waiting=order.size.waiting, seconds=order.size.siege_seconds, say=say
        )
    fewest = min(len(cycles), FEWEST_DEATHS)
    assert outcome.deaths.total() >= fewest, f"{outcome.deaths.total()} deaths say nothing: {fewest} at least"
    return siege_rows(outcome)


def siege_rows(outcome: Outcome) -> list[Row]:
    """What a siege came to, as a table has it."""
    ledger, deaths = outcome.ledger, outcome.deaths
    times = outcome.at_places.values()
    named = f"{len(outcome.at_places)} of {PLACES} places, {min(times)} to {max(times)} times each" if times else "none"
    by_victim = ", ".join(
        f"{deaths[victim]} {victim}" for victim in ("service", "worker", "training") if deaths[victim]
    )
    left_out = f"; {outcome.left_out} left out for time" if outcome.left_out else ""
    return [
        ("kill -9 at a random moment", f"{outcome.at_random} of {deaths.total()} deaths ({by_victim}){left_out}", ""),
        ("kill -9 at a named place of a real program", f"{sum(times)} ({named})", "each died there"),
        ("trainings under siege, compared", str(ledger.verified), "curve and weights equal to the bit"),
        ("acknowledged writes", str(ledger.acknowledged), "0 lost, 0 undone"),
        ("requests for a job sent again", str(ledger.repeated), "each found the first job"),
        ("calls that found nobody or lost their answer", str(ledger.unanswered), "asked again"),
        ("longest that a call went unanswered", f"{ledger.longest_silence_seconds:.1f} s", ""),
        ("the database in the end", "integrity_check, foreign keys, bytes, histories", "0 faults"),
    ]


def measure_stops(order: Order) -> list[Row]:
    with tempfile.TemporaryDirectory() as made:
        stops = ask_to_stop(Path(made), order.size.stops)
    bar = f"≤ {GRACE_SECONDS:.0f} s, status 0, resume point stored, attempt not spent, streams ended"
    return [
        (f"SIGTERM to a {what}", f"{len(seconds)} of {order.size.stops}, longest {max(seconds):.1f} s", bar)
        for what, seconds in (
            ("worker that trains", stops.worker_seconds),
            ("service with two streams", stops.service_seconds),
        )
    ]


def measure_freezes(order: Order) -> list[Row]:
    with tempfile.TemporaryDirectory() as made:
        times = freeze(Path(made), order.size.freezes)
    return [("workers frozen past their lease and thawed", str(times), "0 writes, ended elsewhere to the bit")]


def measure_takeovers(order: Order) -> list[Row]:
    with tempfile.TemporaryDirectory() as made:
        seconds = take_over(Path(made), order.size.takeovers)
    assert max(seconds) <= TAKEOVER_SECONDS, f"a job stood still for {max(seconds):.1f} s"
    told = f"{len(seconds)} times, {min(seconds):.1f} to {max(seconds):.1f} s"
    return [
        ("worker dead, its job running again at another", told, f"≤ {TAKEOVER_SECONDS:.0f} s with the default lease")
    ]


MEASURES: dict[str, Callable[[Order], list[Row]]] = {
    "lives": measure_lives,
    "claims": measure_claims,
    "siege": measure_siege,
    "stops": measure_stops,
    "freezes": measure_freezes,
    "takeovers": measure_takeovers,
}


def write_figures(page: Path, rows: Sequence[Row], command: str) -> None:
    """Put the rows in the place of those between the page's two markers. Raises ValueError if it has none."""
    before, found_begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end):
        raise ValueError(f"{page} has no place for the figures of killing")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    where = f"Run on {today} by `{command}` on {cores} cores, load {load:.1f} in the end."
    head = f"{where} No fault was found; the full form, which is what the bars ask for, has more of each.\n\n"
    table = Report("", ("what", "how often", "bar, met"), tuple(rows)).markdown().partition("\n\n")[2]
    page.write_text(before + BEGIN + head + table + END + after, encoding="utf-8")


def say(text: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", flush=True)


def _size(given: argparse.Namespace) -> Size:
    """The size that is named, with what the siege is to have instead."""
    size = SIZES[given.size]
    asked = {"random_kills": given.random_kills, "rounds": given.rounds}
    if given.minutes is not None:
        asked["siege_seconds"] = 60 * given.minutes
    return replace(size, **{name: value for name, value in asked.items() if value is not None})


def _end_in_order(*_: object) -> NoReturn:
    sys.exit("asked to stop: what was started is ended")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.killing", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="middle")
    parser.add_argument("--seed", type=int, default=1, help="everything drawn follows from it")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given several times")
    parser.add_argument("--random-kills", type=int, help="of the siege, instead of the size's number")
    parser.add_argument("--rounds", type=int, help="of the siege: how often each place kills a real program")
    parser.add_argument("--minutes", type=float, help="of the siege: no cycle begins later, and it is told how many")
    parser.add_argument(
        "--place", choices=POINTS, metavar="NAME", action="append", help="of the siege: this alone, or these"
    )
    parser.add_argument("--cycle", help="of the siege run this one alone, as a failure names it: worker:17")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/reliability.md")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _end_in_order)
    order = Order(_size(given), given.seed, given.cycle, tuple(given.place or ()))
    asked = shlex.join(word for word in sys.argv[1:] if word != "--write-docs")
    command = f"python -m tests.faults.killing {asked}".strip()
    rows: list[Row] = []
    failed: list[str] = []
    for part in given.only or ([part for part in PARTS if given.cycle is None or part == "siege"]):
        began = time.monotonic()
        try:
            found = MEASURES[part](order)
        except Exception as fault:  # noqa: BLE001 - told, and the next part is run
            again = command if given.only else f"{command} --only {part}"
            say(f"{type(fault).__name__}: {fault}\n\nFAILED: {part}, seed {given.seed}. Again: {again}")
            failed.append(part)
            continue
        rows += found
        say(f"{part}: {time.monotonic() - began:.0f} s")
        for row in found:
            print("  " + " | ".join(row), flush=True)
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")
    say("every bar was met")
    if given.write_docs:
        write_figures(PAGE, rows, command)


if __name__ == "__main__":
    main()
