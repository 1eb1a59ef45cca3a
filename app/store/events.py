"""What happened to a job, in the order in which it did.

Invariant: an event is written in the transaction that made it true, so it is seen if and only if it holds.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from app.store.database import Database
from app.store.notices import tell
from app.store.rows import record
from app.store.schema import events

_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Event:
    """A fact about a job. `type` is one of schema.EVENT_TYPES; ids ascend, never reused."""

    id: int
    job_id: str
    type: str
    data: dict[str, Any]
    created_at: datetime


def events_after(database: Database, job_id: str, after_id: int, limit: int = 100) -> list[Event]:
    """The next events of a job, oldest first. An unknown job has none."""
    after_id = max(min(after_id, _LARGEST_ID), 0)  # clients send any number as Last-Event-ID
    query = select(events).where(events.c.job_id == job_id, events.c.id > after_id).order_by(events.c.id).limit(limit)
    with database.read() as connection:
        return [record(Event, row) for row in connection.execute(query)]


def events_before(database: Database, job_id: str, before_id: int | None = None, limit: int = 100) -> list[Event]:
    """The newest events of a job, or those before one, newest first. An unknown job has none."""
    query = select(events).where(events.c.job_id == job_id).order_by(events.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(events.c.id < min(before_id, _LARGEST_ID))
    with database.read() as connection:
        return [record(Event, row) for row in connection.execute(query)]


def append_event(connection: Connection, now: datetime, job_id: str, type_: str, data: dict[str, Any]) -> None:
    """The event is part of the caller's transaction."""
    connection.execute(insert(events).values(job_id=job_id, type=type_, data=data, created_at=now))
    tell(connection, job_id)
