"""The worker's side of the queue: every write is fenced by (job, attempt)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.store.database import Database
from app.store.job_rows import Job
from app.store.job_state import JobStatus
from app.store.trained_models import Checkpoint


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


def claim_next(database: Database, worker_id: str) -> Claim | None:
    raise NotImplementedError


def renew(database: Database, claim: Claim) -> Wanted:
    raise NotImplementedError


def record_started(database: Database, claim: Claim, started: dict[str, Any]) -> None:
    """Merged into the job's progress; no event."""
    raise NotImplementedError


def record_progress(database: Database, claim: Claim, progress: dict[str, Any]) -> None:
    raise NotImplementedError


def record_evaluation(database: Database, claim: Claim, step: int, val_loss: float, best: bool) -> None:
    raise NotImplementedError


def record_sample(database: Database, claim: Claim, step: int, text: str) -> None:
    raise NotImplementedError


def record_saved(
    database: Database,
    claim: Claim,
    *,
    step: int,
    train_loss: float | None,
    val_loss: float | None,
    best: bool,
    checkpoint: bytes | None,
    info: dict[str, Any] | None,
    resume_point: bytes,
) -> Checkpoint | None:
    raise NotImplementedError


def finish(database: Database, claim: Claim, status: JobStatus, error: dict[str, Any] | None = None) -> JobStatus:
    raise NotImplementedError


def release(database: Database, claim: Claim, *, crashed: bool = False, pause: bool = False) -> JobStatus:
    """The status that the job has now: cancelled if wanted, failed after three crashes, paused if wanted, else queued."""
    raise NotImplementedError


def drop_after(database: Database, claim: Claim, step: int) -> None:
    raise NotImplementedError


def read_resume_point(database: Database, claim: Claim) -> bytes | None:
    raise NotImplementedError


class StaleWatch:
    def __init__(
        self, database: Database, lease_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        raise NotImplementedError

    def release_stale(self) -> list[str]:
        raise NotImplementedError
