"""Which workers are there: presence for the reader to judge."""

from dataclasses import dataclass
from datetime import datetime

from app.store.database import Database


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it last announced itself. `beats` counts announcements: a reader who sees it move knows it lives."""

    id: str
    device: str
    job_id: str | None
    beats: int
    started_at: datetime
    seen_at: datetime


def announce(database: Database, worker_id: str, device: str, job_id: str | None = None) -> None:
    raise NotImplementedError


def leave(database: Database, worker_id: str) -> None:
    """A worker that stops says so."""
    raise NotImplementedError


def list_workers(database: Database) -> list[Worker]:
    raise NotImplementedError
