"""The service's side of the queue."""

from typing import Any

from app.store.database import Database
from app.store.job_rows import Job
from app.store.job_state import JobStatus
from app.store.pages import Page

__all__ = ["Job", "cancel_job", "delete_job", "enqueue", "get_job", "list_jobs", "pause_job", "resume_job"]


def enqueue(
    database: Database,
    *,
    name: str,
    corpus_id: str,
    model: dict[str, Any],
    training: dict[str, Any],
    from_checkpoint: str | None = None,
    idempotency: tuple[str, str] | None = None,
    queue_limit: int = 1000,
) -> tuple[Job, bool]:
    """The queued job, and whether it is new (False: the same idempotency key came with the same request before).

    Raises NotFound (corpus or checkpoint), InvalidName, QueueFull, Corrupted, or Conflict for a key used for another request.
    """
    raise NotImplementedError


def get_job(database: Database, job_id: str) -> Job:
    raise NotImplementedError


def list_jobs(database: Database, limit: int, after: str | None = None, status: JobStatus | None = None) -> Page[Job]:
    raise NotImplementedError


def cancel_job(database: Database, job_id: str) -> Job:
    """Cancelled at once, or `cancel_requested` of a running job. Raises NotFound; Conflict when it is finished."""
    raise NotImplementedError


def pause_job(database: Database, job_id: str) -> Job:
    """Paused at once, or `pause_requested` of a running job. Raises NotFound; Conflict when paused, finished or being cancelled."""
    raise NotImplementedError


def resume_job(database: Database, job_id: str) -> Job:
    """Queued again. Raises NotFound; Conflict when it is not paused (yet)."""
    raise NotImplementedError


def delete_job(database: Database, job_id: str) -> None:
    """Gone with its events and metrics; its model stays. Raises NotFound; Conflict while it runs."""
    raise NotImplementedError
