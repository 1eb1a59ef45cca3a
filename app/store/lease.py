"""What a worker holds while it runs a job, and the fence around every write under it.

Works within its callers' transactions. Invariant: once a job was taken over, cancelled or finished, whoever still
believes in an older claim gets LeaseLost and has changed nothing.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, update

from app.store.database import Database
from app.store.errors import LeaseLost
from app.store.job_rows import Job, move
from app.store.job_state import JobStatus
from app.store.queue import give_turn_back
from app.store.schema import jobs

MAX_CRASHES = 3
"""Crashes with no progress stored between them, after which a job is given up."""
MAX_MEMORY_KILLS = 2
"""The same where the system ended the process for lack of memory. Somebody else may have had it, so one more try; but
each may drive whatever else runs there into the same end."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt at a job: what a worker holds while it runs it. `job` is as it stood when it was claimed."""

    job: Job
    attempt: int
    resume_blob: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants of a running job."""

    cancel: bool
    pause: bool


def fence(claim: Claim) -> ColumnElement[bool]:
    """The condition that the claim still holds."""
    running = jobs.c.status == JobStatus.RUNNING.value
    return and_(jobs.c.id == claim.job.id, jobs.c.attempt == claim.attempt, running)


def held(connection: Connection, claim: Claim, **values: Any) -> Row[Any]:
    """The job's row with these values written. Raises LeaseLost. Also a sign of life: the heartbeat counts up.

    Every write of a worker begins with it; what follows in the transaction is as fenced.
    """
    alive = update(jobs).where(fence(claim)).values(heartbeat=jobs.c.heartbeat + 1, **values)
    row = connection.execute(alive.returning(*jobs.c)).first()
    if row is None:
        raise LeaseLost(claim.job.id, claim.attempt)
    return row


def release_in(
    database: Database,
    connection: Connection,
    claim: Claim,
    *,
    crashed: bool,
    pause: bool = False,
    out_of_memory: bool = False,
) -> JobStatus:
    """The status that the job has now: see `release`."""
    row = held(connection, claim)
    crashes = row.crashes + 1 if crashed else row.crashes
    status, error = JobStatus.QUEUED, None
    if row.cancel_requested:
        status = JobStatus.CANCELLED
    elif out_of_memory and crashes >= MAX_MEMORY_KILLS:
        detail = "the system ended the training process, again and without progress between: it had no more memory"
        status, error = JobStatus.FAILED, {"code": "out_of_memory", "detail": detail}
    elif crashes >= MAX_CRASHES:
        detail = f"the worker died {crashes} times in a row without progress stored between"
        status, error = JobStatus.FAILED, {"code": "crash_loop", "detail": detail}
    elif pause or row.pause_requested:
        status = JobStatus.PAUSED
    leave(database, connection, claim, status, crashes=crashes, error=error)
    if status is JobStatus.QUEUED:
        give_turn_back(connection, row.key_id)
    return status


def leave(database: Database, connection: Connection, claim: Claim, status: JobStatus, **values: Any) -> None:
    """The job is with its worker no more, but has this status. Raises LeaseLost."""
    if move(connection, database.now(), status, fence(claim), **values) is None:
        raise LeaseLost(claim.job.id, claim.attempt)
