"""Short jobs, trained by real workers or by a dispatcher, and what of each job's time goes where.

They write down themselves when they came by what (`benchmarks.timed_worker`). When some are killed meanwhile, this
finds out whether a job was lost or run twice.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sqlalchemy import func, select

from app.store import corpora, jobs
from app.store.database import Database
from app.store.job_state import JobStatus
from app.store.opening import open_database
from app.store.schema import jobs as job_rows
from benchmarks.timed_worker import CLAIMED, DONE, FINISHED, PLACES, STARTED, THERE, TOLD
from models.config import ModelConfig, TrainingConfig
from tests.faults.evidence import integrity_faults, job_faults

LEASE_SECONDS = 3
LONGEST_SECONDS = 1800.0
TEXT = b"to be, or not to be, that is the question\n" * 500

Attempt = dict[str, float]
"""When a worker came by each of its places with a job."""


@dataclass(slots=True)
class Run:
    """What became of the jobs of one run; of each attempt that was undisturbed, the seconds of its parts."""

    seconds: float = 0.0
    deaths: int = 0
    attempts: int = 0
    claiming: list[float] = field(default_factory=list)
    """From the end of a job to the claim on the next, for the place that it leaves."""
    telling: list[float] = field(default_factory=list)
    """From a claim until a training process is told."""
    ending: list[float] = field(default_factory=list)
    """From a training's last word until the job's end is recorded, and its process gone."""
    queueing: list[float] = field(default_factory=list)
    """These three together."""
    forking: list[float] = field(default_factory=list)
    """Until the process is there."""
    loading: list[float] = field(default_factory=list)
    """From there until text, network and compiled code are loaded."""
    training: list[float] = field(default_factory=list)
    """From there to the end of training, all that it told recorded."""


class Crew(Protocol):
    """Who trains the jobs of a run."""

    places: int
    """Jobs that each of its workers has at once."""

    def may_die(self) -> bool:
        """Whether the next of its parts may be killed now without making a job seem to crash by itself."""
        ...

    def kill(self) -> None:
        """Kill the next of its parts, and begin a successor."""
        ...

    def stop(self) -> None:
        """End all."""
        ...

    def notes(self) -> list[list[Attempt]]:
        """Of each worker that there was, its attempts in the order of their claims."""
        ...


def enqueue(database: Database, count: int) -> None:
    """So many small jobs: GRU 1x16, 6 steps."""
    corpus = corpora.add_corpus(database, [TEXT], "hamlet").corpus
    model = ModelConfig(cell="gru", hidden_size=16, embedding_size=8).as_dict()
    training = TrainingConfig(steps=6, batch_size=8, sequence_length=32, evaluate_every=6).as_dict()
    for number in range(count):
        jobs.enqueue(database, name=f"job-{number}", corpus_id=corpus.id, model=model, training=training)


def start_worker(folder: Path, notes: Path, url: str, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A worker that writes down what it does, with no settings but these."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CHARSMITH_", "RAY_"))} | {
        "CHARSMITH_DATA_DIR": str(folder),
        "CHARSMITH_DATABASE_URL": url,
        "CHARSMITH_LEASE_SECONDS": str(LEASE_SECONDS),
        "CHARSMITH_TORCH_THREADS": "1",
        "CHARSMITH_LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "benchmarks.timed_worker", str(notes)]
    return subprocess.Popen(command, env=environment | more, stdin=subprocess.DEVNULL)


def train_all(url: str, crew: Crew, count: int, kill_every: float | None = None) -> Run:
    """All jobs of the database, which are so many. Raises AssertionError for one that is lost or was run twice."""
    with closing(open_database(url)) as database:
        try:
            deaths = _until_all_have_ended(database, crew, kill_every)
        finally:
            crew.stop()
        faults = job_faults(database) + integrity_faults(database)
        assert not faults, faults[:5]
        with database.read() as connection:
            rows = connection.execute(select(job_rows)).all()
    lost = [(row.id, row.status, row.error) for row in rows if row.status != JobStatus.SUCCEEDED.value]
    assert not lost, lost
    assert len(rows) == count
    run = _run_of(crew.notes(), crew.places)
    run.deaths, run.attempts = deaths, sum(row.attempt for row in rows)
    return run


def _until_all_have_ended(database: Database, crew: Crew, kill_every: float | None) -> int:
    """How many parts of the crew were killed meanwhile, by turns."""
    began = killed_at = time.monotonic()
    deaths = 0
    live = select(func.count()).where(job_rows.c.finished_at.is_(None))
    while True:
        with database.read() as connection:
            if connection.execute(live).scalar_one() == 0:
                return deaths
        now = time.monotonic()
        assert now - began < LONGEST_SECONDS, "the jobs do not end"
        if kill_every is not None and now - killed_at > kill_every and crew.may_die():
            crew.kill()
            deaths, killed_at = deaths + 1, now
        time.sleep(0.2)


def attempts_in(notes: Path) -> list[Attempt]:
    """What a worker wrote down, in the order of its claims."""
    found: list[Attempt] = []
    newest: dict[str, Attempt] = {}
    for line in notes.read_text().splitlines() if notes.exists() else ():
        with suppress(ValueError):  # the last one of a worker that was killed may be torn
            place, job, seconds = json.loads(line)
            if place == PLACES[0]:
                newest[job] = {}
                found.append(newest[job])
            newest[job][place] = seconds
    return found


def _run_of(notes: list[list[Attempt]], places: int) -> Run:
    """The first attempts of a worker load what the later ones find loaded, and are left out."""
    run = Run()
    everything = [attempt for of_worker in notes for attempt in of_worker]
    run.seconds = max(at[DONE] for at in everything if DONE in at) - min(at[CLAIMED] for at in everything)
    for of_worker in notes:
        ends = sorted(attempt[DONE] for attempt in of_worker if DONE in attempt)
        for end, at in zip(ends, of_worker[places:], strict=False):
            if set(at) != set(PLACES):
                continue
            parts = at[CLAIMED] - end, at[TOLD] - at[CLAIMED], at[DONE] - at[FINISHED]
            for kept, seconds in zip((run.claiming, run.telling, run.ending), parts, strict=True):
                kept.append(seconds)
            run.queueing.append(sum(parts))
            run.forking.append(at[THERE] - at[TOLD])
            run.loading.append(at[STARTED] - at[THERE])
            run.training.append(at[FINISHED] - at[STARTED])
    return run
