"""What the database knows of the whole installation in numbers, read at once for whoever watches it.

Knows neither HTTP nor Prometheus. Invariant: only running jobs are told one by one, so an answer stays small however
many jobs there were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from app.store.database import Database
from app.store.job_state import JobStatus
from app.store.schema import jobs


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A running job as its worker last recorded it; None for what is not known yet."""

    id: str
    step: int | None
    train_loss: float | None
    val_loss: float | None
    characters_per_second: float | None
    step_seconds: float | None
    """Of the characters of a step, at that speed."""
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Figures:
    """One look at the database."""

    jobs: Mapping[str, int]
    """By status; every status is there."""
    running: tuple[RunningJob, ...]
    bytes: int


def read_figures(database: Database) -> Figures:
    """Jobs by status, the running ones, and the size of the database. Raises StoreError."""
    with database.read() as connection:
        counted = connection.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status)).all()
        query = select(jobs.c.id, jobs.c.progress, jobs.c.training).where(jobs.c.status == JobStatus.RUNNING.value)
        running = tuple(_running(*row) for row in connection.execute(query.order_by(jobs.c.id)))
    by_status = {str(status): int(number) for status, number in counted}
    return Figures({status.value: by_status.get(status.value, 0) for status in JobStatus}, running, database.bytes())


def _running(job_id: str, progress: Mapping[str, Any], training: Mapping[str, Any]) -> RunningJob:
    speed = progress.get("characters_per_second")
    step_characters = training["batch_size"] * training["sequence_length"]
    return RunningJob(
        id=job_id,
        step=progress.get("step"),
        train_loss=progress.get("train_loss"),
        val_loss=progress.get("val_loss"),
        characters_per_second=speed,
        step_seconds=step_characters / speed if speed else None,
        memory_bytes=progress.get("memory_bytes"),
    )
