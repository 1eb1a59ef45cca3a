"""Which workers are there: what they say of themselves, for the reader to judge.

Invariant: `beats` of a living worker moves; times here are for people, no decision hangs on them.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update

from app.store.database import Database
from app.store.rows import record
from app.store.schema import workers

FORGET_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it last announced itself. `beats` counts announcements: a reader who sees it move knows it lives."""

    id: str
    device: str
    memory_bytes: int | None
    """What a training may take there; None: it does not say."""
    job_id: str | None
    beats: int
    started_at: datetime
    seen_at: datetime


def announce(
    database: Database, worker_id: str, device: str, job_id: str | None = None, *, memory_bytes: int | None = None
) -> None:
    """The worker is listed, with the job it runs, and has beaten once more. A new one sends long gone ones away."""
    now = database.now()
    seen = {"device": device, "memory_bytes": memory_bytes, "job_id": job_id, "seen_at": now}
    with database.write() as connection:
        beat = update(workers).where(workers.c.id == worker_id).values(beats=workers.c.beats + 1, **seen)
        if connection.execute(beat).rowcount == 0:
            connection.execute(insert(workers).values(id=worker_id, beats=1, started_at=now, **seen))
            connection.execute(delete(workers).where(workers.c.seen_at < now - FORGET_AFTER))


def leave(database: Database, worker_id: str) -> None:
    """The worker is listed no more: it stops, and says so."""
    with database.write() as connection:
        connection.execute(delete(workers).where(workers.c.id == worker_id))


def list_workers(database: Database) -> list[Worker]:
    """All that have announced themselves and not left, by id."""
    with database.read() as connection:
        return [record(Worker, row) for row in connection.execute(select(workers).order_by(workers.c.id))]
