"""The worker's side of the queue: claiming a job, keeping it, giving it back.

Knows nothing of training. Invariant: every write is fenced by (job, attempt): once a job was taken over, cancelled or
finished, a worker that still believes in its claim gets LeaseLost and has changed nothing.
"""

import logging
from collections.abc import Collection
from typing import Any

from sqlalchemy import select

from app.fault_points import fault_point
from app.store.blobs import best_effort, discard_blob, drop, read_blob, remove_dropped
from app.store.database import Database
from app.store.errors import Corrupted, NotFound
from app.store.job_rows import move, read_job
from app.store.job_state import FINISHED, JobStatus
from app.store.lease import MAX_CRASHES, Claim, Wanted, held, leave, release_in
from app.store.metrics import drop_metrics_after
from app.store.queue import next_in_turn, passing_over, take_turn
from app.store.recording import (
    record_evaluation,
    record_progress,
    record_sample,
    record_saved,
    record_setback,
    record_started,
)
from app.store.schema import jobs
from app.store.stale_watch import StaleWatch

__all__ = [
    "MAX_CRASHES",
    "Claim",
    "StaleWatch",
    "Wanted",
    "claim_next",
    "drop_after",
    "finish",
    "read_resume_point",
    "record_evaluation",
    "record_progress",
    "record_sample",
    "record_saved",
    "record_setback",
    "record_started",
    "release",
    "renew",
]

logger = logging.getLogger(__name__)


def claim_next(database: Database, worker_id: str, *, not_now: Collection[str] = ()) -> Claim | None:
    """A claim on the queued job whose turn it is, None when none waits but those with the ids `not_now`.

    No two workers get the same.
    """
    queued = jobs.c.status == JobStatus.QUEUED.value
    with database.read() as connection:  # an idle worker asks often and need not lock others out
        waiting = select(jobs.c.sequence).where(queued, *passing_over(jobs.c.sequence, not_now))
        if connection.execute(waiting.limit(1)).first() is None:
            return None
    with database.write() as connection:
        is_next = jobs.c.sequence == next_in_turn(not_now).scalar_subquery()
        attempt = {"worker": worker_id, "attempt": jobs.c.attempt + 1, "heartbeat": jobs.c.heartbeat + 1}
        job_id = move(connection, database.now(), JobStatus.RUNNING, queued, is_next, **attempt)
        if job_id is None:
            return None
        job = read_job(connection, job_id)
        resume_blob = connection.execute(select(jobs.c.resume_blob_id).where(jobs.c.id == job_id)).scalar_one()
        take_turn(
            connection, job.key_id
        )  # last: under PostgreSQL claims of the same key wait for each other from here on
        claim = Claim(job, job.attempt, resume_blob)
        fault_point("claim.taking")
    fault_point("claim.taken")
    return claim


def renew(database: Database, claim: Claim) -> Wanted:
    """What a person wants of the job; the lease is extended. Raises LeaseLost."""
    with database.write() as connection:
        row = held(connection, claim)
        fault_point("lease.renewing")
    fault_point("lease.renewed")
    return Wanted(cancel=row.cancel_requested, pause=row.pause_requested)


def finish(database: Database, claim: Claim, status: JobStatus, error: dict[str, Any] | None = None) -> None:
    """The job is succeeded, failed (with an `error`) or cancelled. Raises LeaseLost.

    A job that got to its end in spite of a request to cancel or pause has succeeded: that is what happened.
    """
    if status not in FINISHED or (status is JobStatus.FAILED) != (error is not None):
        raise ValueError(f"a job cannot finish as {status} with error {error!r}")
    with database.write() as connection:
        leave(database, connection, claim, status, error=error)
        fault_point("finish.ending")
    fault_point("finish.ended")
    with best_effort():
        remove_dropped(database)
        database.give_back_space()


def release(
    database: Database, claim: Claim, *, crashed: bool = False, pause: bool = False, out_of_memory: bool = False
) -> JobStatus:
    """The job runs no more, and has the status returned. Raises LeaseLost.

    Cancelled if that is wanted; failed after its third crash without progress stored between (its second, if
    this one was `out_of_memory`); paused if `pause` or
    wanted; else queued, to go on from its resume point. The claim's attempt stays counted: it fences.
    """
    with database.write() as connection:
        status = release_in(database, connection, claim, crashed=crashed, pause=pause, out_of_memory=out_of_memory)
        fault_point("lease.releasing")
    fault_point("lease.released")
    return status


def drop_after(database: Database, claim: Claim, step: int) -> None:
    """Metrics later than `step` are gone, as an attempt that goes on from there comes by again.

    Events stay, and checkpoints: the best one is the job's best until it is beaten, also where the job starts anew.
    """
    with database.write() as connection:
        held(connection, claim)
        drop_metrics_after(connection, claim.job.id, step)
    fault_point("attempt.rewound")


def read_resume_point(database: Database, claim: Claim) -> bytes | None:
    """The newest resume point, verified; None when there is none. Raises LeaseLost.

    A damaged one is given up, so that the job starts anew: its checkpoints stay usable meanwhile.
    """
    with database.write() as connection:
        blob_id = held(connection, claim).resume_blob_id
    try:
        resume_point = None if blob_id is None else b"".join(read_blob(database, blob_id))
    except (Corrupted, NotFound) as error:
        logger.error("%s starts anew, its resume point cannot be used: %s", claim.job.id, error)  # noqa: TRY400
    else:
        fault_point("resume_point.read")
        return resume_point
    with database.write() as connection:
        held(connection, claim, resume_blob_id=None, resume_step=None)
        drop(database, connection, [blob_id])
    discard_blob(database, blob_id)
    return None
