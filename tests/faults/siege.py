"""An installation whose service, worker and training processes are killed again and again while people use it.

Two lanes kill side by side: one the service, one the worker and what it trains in. A cycle is either a named place
(`FAULT=name:nth:kill`, and the program must come by it and die there) or a kill at a random moment. Everything is drawn
from the seed, so that a cycle can be repeated by its name; the rest is the machine's. Nothing is set right by hand in
between: the next start is a start as any other.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from app.store.blobs import sweep
from app.store.errors import StoreError
from app.store.lease import MAX_CRASHES
from app.store.opening import open_existing
from app.store.schema import jobs
from tests.faults.evidence import integrity_faults, job_faults, orphans
from tests.faults.people import Ledger, People
from tests.faults.programs import DEATH_SECONDS, Programs
from tests.system.harness import wait_for

BLOB_PLACES = [
    "blob.opened",
    "blob.chunk",
    "blob.written",
    "blob.dropped",
    "blob.chunks_removed",
    "blob.removed",
]
SERVICE_PLACES = [
    *BLOB_PLACES,
    "space.given_back",
    "corpus.naming",
    "corpus.named",
    "corpus.deleting",
    "corpus.deleted",
    "model.naming",
    "model.named",
    "model.deleting",
    "model.deleted",
    "job.queueing",
    "job.queued",
    "job.deleting",
    "job.deleted",
    "lease.taking_over",
    "lease.taken_over",
]
WORKER_PLACES = [
    *BLOB_PLACES,
    "blob.swept",
    "claim.taking",
    "claim.taken",
    "resume_point.read",
    "attempt.rewound",
    "started.recording",
    "started.recorded",
    "progress.recording",
    "progress.recorded",
    "evaluation.recording",
    "evaluation.recorded",
    "sample.recorded",
    "checkpoint.naming",
    "checkpoint.named",
    "checkpoint.replaced",
    "lease.renewing",
    "lease.renewed",
    "lease.releasing",
    "lease.released",
    "finish.ending",
    "finish.ended",
    "training.event",
]
"""Where each program can be made to die by what people do. A service takes over from a worker sooner than another
worker, which is at work; a migration is only met by an empty database, in lives.py."""

RARE = {"claim.taking", "claim.taken", "resume_point.read", "attempt.rewound", "started.recording", "started.recorded"}
RARE |= {"finish.ending", "finish.ended", "blob.swept", "lease.releasing", "lease.released", "space.given_back"}
RARE |= {"lease.taking_over", "lease.taken_over"}
SLOW = {"model.naming", "model.named", "model.deleting", "model.deleted", "lease.renewing", "lease.renewed"}
LATEST_PASSING = 12
LATEST_SLOW_PASSING = 3
"""Passed once or twice in a while: the first passing kills. Of the others one of the first dozen does, or of the first
three where they come slowly."""
FIRST_CHECKPOINT = 8
"""Things that a training process tells before its first checkpoint is told; one that dies later has got on."""
LONGEST_WAIT_SECONDS = 3.0
"""Before a random kill, from when its victim is there."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """One death. `place` and `nth` for a named one, `wait_seconds` for a random one."""

    lane: str
    number: int
    victim: str
    place: str = ""
    nth: int = 0
    wait_seconds: float = 0.0

    def __str__(self) -> str:
        what = f"{self.place}:{self.nth}:kill" if self.place else f"kill -9 after {self.wait_seconds:.2f} s"
        return f"cycle {self.lane}:{self.number}, {self.victim}, {what}"


def plan(seed: int, *, rounds: int, random_kills: int) -> list[Cycle]:
    """Every place of each program `rounds` times, and so many random kills, in a drawn order."""
    cycles: list[Cycle] = []
    for lane, places, victims in (
        ("service", SERVICE_PLACES, ["service"]),
        ("worker", WORKER_PLACES, ["worker", "training"]),
    ):
        draw = random.Random(f"{seed} {lane}")
        kills = random_kills // 3 if lane == "service" else random_kills - random_kills // 3
        drawn = [(_victim_at(lane, place), place, _passing(draw, place), 0.0) for place in places * rounds]
        drawn += [(draw.choice(victims), "", 0, draw.uniform(0, LONGEST_WAIT_SECONDS)) for _ in range(kills)]
        draw.shuffle(drawn)
        cycles += [Cycle(lane, number, *what) for number, what in enumerate(drawn)]
    return cycles


def _victim_at(lane: str, place: str) -> str:
    return "training" if place == "training.event" else lane


def _passing(draw: random.Random, place: str) -> int:
    if place == "training.event":
        return draw.randint(FIRST_CHECKPOINT, 3 * FIRST_CHECKPOINT)
    if place in RARE:
        return 1
    return draw.randint(1, LATEST_SLOW_PASSING if place in SLOW else LATEST_PASSING)


@dataclass
class Outcome:
    """What a siege came to: deaths by victim and by place, and what people hold."""

    deaths: Counter[str] = field(default_factory=Counter)
    at_places: Counter[str] = field(default_factory=Counter)
    at_random: int = 0
    left_out: int = 0
    """Cycles for which there was no time."""
    seconds: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)


class SiegeFailed(AssertionError):
    """What was found, and how to come there again."""


class Abandoned(Exception):
    """There is a fault already: whoever still waits for something need not."""


def besiege(
    folder: Path,
    seed: int,
    cycles: Sequence[Cycle],
    *,
    waiting: int = 4,
    seconds: float = float("inf"),
    say: Callable[[str], None] = print,
) -> Outcome:
    """Run the cycles, let every job end, and look at what is left. No cycle begins after so many seconds.

    People have as many jobs `waiting` to be trained at any time.

    Raises SiegeFailed.
    """
    siege = _Siege(folder, seed, waiting, seconds, say)
    try:
        siege.prepare()
        siege.run(cycles)
        siege.reckon()
    except (AssertionError, OSError, StoreError) as fault:
        raise SiegeFailed(f"seed {seed}, {siege.where()}: {fault}\n{siege.programs.last_words()}") from fault
    finally:
        siege.close()
    return siege.outcome


class _Siege:
    def __init__(self, folder: Path, seed: int, waiting: int, seconds: float, say: Callable[[str], None]) -> None:
        self.programs = Programs(folder)
        self.people = People(self.programs.installation.url, seed, waiting)
        self.outcome = Outcome(ledger=self.people.ledger)
        self._say = say
        self._seconds = seconds
        self._began = time.monotonic()
        self._current: dict[str, Cycle] = {}
        self._fault: BaseException | None = None
        self._lock = threading.Lock()
        self._worker_lane = threading.current_thread()

    def where(self) -> str:
        """The cycles under way, or last run."""
        return "; ".join(map(str, self._current.values())) or "before the first cycle"

    def prepare(self) -> None:
        self.programs.start("api")
        self._wait_for("the service", self.programs.is_ready)
        self.programs.start("worker")
        self.people.prepare()

    def run(self, cycles: Sequence[Cycle]) -> None:
        self._began = time.monotonic()
        self.people.begin()
        lanes = {"service": ("api", self._kill_service), "worker": ("worker", self._kill_worker)}
        threads = {
            name: threading.Thread(target=self._lane, args=(*how, [one for one in cycles if one.lane == name]))
            for name, how in lanes.items()
        }
        self._worker_lane = threads["worker"]
        for thread in threads.values():
            thread.start()
        for thread in threads.values():
            thread.join()
        self.people.end()
        self.outcome.seconds = time.monotonic() - self._began
        for fault in [self._fault, *self.people.faults]:
            if fault is not None:
                raise fault

    def _lane(self, program: str, kill: Callable[[Cycle], None], cycles: Sequence[Cycle]) -> None:
        """All cycles of a lane, as far as there is time and no fault; its program is there afterwards."""
        try:
            for done, cycle in enumerate(cycles):
                if time.monotonic() - self._began > self._seconds:
                    with self._lock:
                        self.outcome.left_out += len(cycles) - done
                    break
                self._current[cycle.lane] = cycle
                kill(cycle)
                self._note(cycle)
            self.programs.ensure(program)
        except Abandoned:
            return
        except BaseException as fault:  # noqa: BLE001 - raised by `run`, in the main thread
            self._fault = fault

    def _note(self, cycle: Cycle) -> None:
        with self._lock:
            self.outcome.deaths[cycle.victim] += 1
            if cycle.place:
                self.outcome.at_places[f"{cycle.victim} {cycle.place}"] += 1
            else:
                self.outcome.at_random += 1
            total = self.outcome.deaths.total()
        if total % 50 == 0:
            ledger = self.people.ledger
            self._say(f"{total} deaths, {ledger.acknowledged} acknowledged, {ledger.verified} trainings compared")

    def _kill_service(self, cycle: Cycle) -> None:
        if cycle.place:
            self.programs.kill("api")
            self.programs.start("api", f"{cycle.place}:{cycle.nth}:kill")
            if cycle.place.startswith("lease.tak") and not self._worker_lane.is_alive():
                self._let_a_worker_die()
            self._wait_for(f"{cycle} to be passed", lambda: self.programs.was_killed("api"))
        else:
            self.programs.ensure("api")
            self._wait_for("the service", self.programs.is_ready)
            time.sleep(cycle.wait_seconds)
            self.programs.kill("api")

    def _let_a_worker_die(self) -> None:
        """In the midst of a training, so that there is something to take over, where nobody else kills workers."""
        self.programs.ensure("worker")
        self._wait_for("a training process", self.programs.training_processes)
        self.programs.kill("worker")

    def _kill_worker(self, cycle: Cycle) -> None:
        self._spare_jobs()
        if not cycle.place:
            self._kill_at_random(cycle)
            return
        self.programs.stop("worker")  # not killed: a job that lost two workers in one cycle would near a crash loop
        said = self.programs.log_size("worker")
        self.programs.start("worker", f"{cycle.place}:{cycle.nth}:kill")
        if cycle.victim == "training":
            self._wait_for(f"{cycle} to be passed", lambda: "ended with -9" in self.programs.log_since("worker", said))
            self.programs.stop("worker")  # the next training process would be told the same
            return
        if cycle.place.startswith("lease.releas"):  # it gives a job back when its training process dies
            self._wait_for("a training process", self.programs.kill_training)
        self._wait_for(f"{cycle} to be passed", lambda: self.programs.was_killed("worker"))

    def _kill_at_random(self, cycle: Cycle) -> None:
        self.programs.ensure("worker")
        self._wait_for("a training process", self.programs.training_processes)
        time.sleep(cycle.wait_seconds)
        if cycle.victim == "worker":
            self.programs.kill("worker")
        else:
            self._wait_for("a training process to kill", self.programs.kill_training)

    def _spare_jobs(self) -> None:
        """A job that the next death could fail as a crash loop is left to get on first, as it would be in life."""

        def none_near_its_end() -> bool:
            if self._most_crashes() < MAX_CRASHES - 1:
                return True
            self.programs.ensure("worker")
            return False

        self._wait_for("a job that has crashed twice to get on", none_near_its_end)

    def _most_crashes(self) -> int:
        """Of an unfinished job. A running one may be a dead worker's, with a crash that nobody has noticed yet."""
        live = select(jobs.c.status, jobs.c.crashes).where(jobs.c.status.in_(("queued", "running")))
        database = open_existing(self.programs.installation.database_url)
        try:
            with database.read() as connection:
                rows = connection.execute(live).all()
        finally:
            database.close()
        return max((row.crashes + (row.status == "running") for row in rows), default=0)

    def _wait_for(self, what: str, probe: Callable[[], object]) -> None:
        """Until `probe` finds something. Raises Abandoned as soon as something was found wrong elsewhere."""

        def look() -> bool | None:
            if self._fault is not None or self.people.faults:
                raise Abandoned
            return bool(probe()) or None

        wait_for(what, look, DEATH_SECONDS)

    def reckon(self) -> None:
        """Every job ends, everything acknowledged is there, the file is sound and holds nothing that nobody names."""
        self._wait_for("all jobs to end", lambda: self.people.look_at_jobs() == 0)
        self.people.reckon()
        self.programs.close()
        database = open_existing(self.programs.installation.database_url)
        try:
            sweep(database, timedelta(seconds=-1))
            faults = integrity_faults(database) + orphans(database) + job_faults(database)
        finally:
            database.close()
        assert not faults, f"{len(faults)} faults in the database: {faults[:10]}"

    def close(self) -> None:
        self.people.end()
        self.programs.close()
        self.people.close()
