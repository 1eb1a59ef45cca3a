"""One life at the store: every act of the service and of a worker, from the first upload to the last deletion.

The store's own functions, in the order in which programs call them; training is scripted, so that a whole life takes a
fraction of a second. Lived again after a death it goes on: what was acknowledged is not asked for again, everything
else is. Invariant: however often it dies, what it leaves behind is what an undisturbed life leaves.
"""

import contextlib
import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from app.fault_points import arm, count_passings
from app.store import claims, corpora, jobs, trained_models
from app.store.blobs import sweep, write_blob
from app.store.database import Database
from app.store.errors import NotFound
from app.store.job_state import JobStatus
from app.store.opening import open_database
from app.store.stale_watch import StaleWatch

STEPS = {"long": 1, "short": 7}
"""Of the jobs on the two texts, with a checkpoint at each: in one case more than retention keeps."""
STOPPED_AT = 3
"""Here a worker is asked to stop, and gives the job back."""
LEASE_SECONDS = 13.0
TEXTS = {"long": b"All work and no play makes Jack a dull boy\n" * 150_000, "short": b"to be or not to be\n" * 9}
"""The first in more chunks than one deletion takes pages: 6 MiB."""

Tell = Callable[[Any], None]


class Clock:
    """A wall clock that runs ahead when told to, so that what waits for a grace time has its turn."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def jump(self, **by: float) -> None:
        self._ahead += timedelta(**by)


class Monotonic:
    """Stands still within a look."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def __call__(self) -> float:
        return self._seconds

    def jump(self, seconds: float) -> None:
        self._seconds += seconds


def live(tell: Tell, url: str, fault: str, acknowledged: Collection[str]) -> None:
    """Do all that is not acknowledged yet, telling each act that is done, and at last how often each place was passed.

    The body of a mortal process: `fault` may end it anywhere.
    """
    logging.disable(logging.CRITICAL)  # that somebody takes over and somebody dies is as it should be
    arm({"FAULT": fault})
    passings = None if fault else count_passings()
    clock = Clock()
    database = open_database(url, clock=clock)
    acts: dict[str, Callable[[], Any]] = {
        **{f"corpus {name}": _upload(database, name) for name in TEXTS},
        **{f"job {name}": _enqueue(database, name) for name in TEXTS},
        "work": lambda: _work(database, clock),
        "model copy": lambda: _upload_model(database, "copy"),
        "model gone": lambda: _upload_model(database, "gone"),
        "deleted model gone": lambda: _delete_model(database, "gone"),
        "deleted job long": lambda: _unless_gone(jobs.delete_job, database, "long"),
        "deleted corpus long": lambda: _unless_gone(corpora.delete_corpus, database, "long"),
    }
    for name, act in acts.items():
        if name not in acknowledged:
            act()
            tell(name)
    clock.jump(days=1)
    sweep(database)
    database.close()
    tell(dict(passings or {}))


def _upload(database: Database, name: str) -> Callable[[], Any]:
    return lambda: corpora.add_corpus(database, [TEXTS[name]], name)


def _enqueue(database: Database, name: str) -> Callable[[], Any]:
    order: dict[str, Any] = {
        "name": name,
        "corpus_id": name,
        "model": {"cell": "gru"},
        "training": {"steps": STEPS[name]},
    }
    return lambda: jobs.enqueue(database, **order, idempotency=(f"key of {name}", "a" * 64))


def _work(database: Database, clock: Clock) -> None:
    """All jobs are finished. The first worker goes away with the first job that it claims."""
    if all(job.attempt == 0 for job in jobs.list_jobs(database, 10).data):
        claims.claim_next(database, "gone")
    monotonic = Monotonic()
    watch = StaleWatch(database, LEASE_SECONDS, monotonic=monotonic)
    for _ in range(5):
        watch.release_stale()
        monotonic.jump(LEASE_SECONDS)
    while (claim := claims.claim_next(database, "worker")) is not None:
        _train(database, claim, clock)


def _train(database: Database, claim: claims.Claim, clock: Clock) -> None:
    resume = claims.read_resume_point(database, claim)
    first = 0 if resume is None else int(resume)
    claims.drop_after(database, claim, first)
    steps = claim.job.training["steps"]
    claims.record_started(database, claim, {"steps": steps, "step": first})
    for step in range(first + 1, steps + 1):
        claims.renew(database, claim)
        loss = 2.0 + (step - 3) ** 2 / 10
        claims.record_progress(database, claim, {"step": step, "steps": steps, "train_loss": loss})
        claims.record_evaluation(database, claim, step, loss, step <= 3)
        claims.record_sample(database, claim, step, f"step {step}")
        claims.record_saved(
            database,
            claim,
            step=step,
            train_loss=loss,
            val_loss=loss,
            checkpoint=f"{claim.job.name} {step} ".encode() * 30_000,
            info={"vocabulary_size": 30, "parameters": 1000},
            resume_point=str(step).encode(),
        )
        clock.jump(minutes=2)
        if step == STOPPED_AT:
            claims.release(database, claim)
            return
    claims.finish(database, claim, JobStatus.SUCCEEDED)


def _upload_model(database: Database, name: str) -> None:
    blob = write_blob(database, [f"weights of {name} ".encode() * 1000])
    info = {"config": {"cell": "gru"}, "vocabulary_size": 30, "parameters": 1000, "step": 7}
    trained_models.add_model(database, blob, name, info)


def _unless_gone(delete: Callable[[Database, str], None], database: Database, name: str) -> None:
    """An act that was done, and not acknowledged, is done."""
    with contextlib.suppress(NotFound):
        delete(database, name)


def _delete_model(database: Database, name: str) -> None:
    """Also the second one that came of an upload without an answer, sent again."""
    while any(model.name == name for model in trained_models.list_models(database, 100).data):
        trained_models.delete_model(database, name)
