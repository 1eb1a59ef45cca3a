"""What happened to a job, in the order in which it did."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.store.database import Database


@dataclass(frozen=True, slots=True)
class Event:
    """A fact about a job. `type` is status, progress, evaluation, sample or checkpoint; ids ascend and are never reused."""

    id: int
    job_id: str
    type: str
    data: dict[str, Any]
    created_at: datetime


def events_after(database: Database, job_id: str, after_id: int, limit: int = 100) -> list[Event]:
    """The next events of a job, oldest first. An unknown job has none."""
    raise NotImplementedError
