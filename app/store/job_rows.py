"""Jobs as they are read, and the one statement that moves them from status to status.

Invariant: a status changes only along job_state.TRANSITIONS, and each change appends its event.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, select, update

from app.store.errors import NotFound
from app.store.events import append_event
from app.store.holding import Hold, held_row
from app.store.job_state import FINISHED, JobStatus, sources_of
from app.store.names import is_id, is_name
from app.store.queue import place_of
from app.store.rows import record
from app.store.schema import jobs, models


@dataclass(frozen=True, slots=True)
class Job:
    """A request to train, and where it stands."""

    id: str
    name: str
    status: JobStatus
    corpus_id: str | None
    """None once the corpus is deleted, which only a finished job allows."""
    corpus_name: str
    model: dict[str, Any]
    training: dict[str, Any]
    from_checkpoint: str | None
    """As `<model id>@<step>`: what `find_checkpoint` takes."""
    new_characters: int | None
    """Of the corpus, that the checkpoint did not know; None without a checkpoint."""
    progress: dict[str, Any]
    best_step: int | None
    best_val_loss: float | None
    error: dict[str, Any] | None
    attempt: int
    worker: str | None
    cancel_requested: bool
    pause_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    model_id: str | None
    """The model that it has produced so far."""
    place: int | None
    """In the queue, from 1; None unless queued."""
    key_id: str | None
    """Of the API key that queued it; None: nobody was asked for one."""
    request_id: str | None
    """Of the request that queued it, as the logs have it."""
    metadata: dict[str, str] | None
    """What its owner noted beside it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", JobStatus(self.status))


def select_jobs() -> Select[Any]:
    """Jobs with what a Job has beyond its own row."""
    return select(
        jobs,
        models.c.id.label("model_id"),
        case((jobs.c.status == JobStatus.QUEUED.value, place_of(jobs)), else_=None).label("place"),
    ).select_from(jobs.outerjoin(models, models.c.job_id == jobs.c.id))


def read_job(connection: Connection, job_id: str) -> Job:
    """The job as it stands in this transaction. Raises NotFound."""
    row = connection.execute(select_jobs().where(jobs.c.id == job_id)).first() if is_id(job_id) else None
    if row is None:
        raise NotFound("job", job_id)
    return record(Job, row)


def find_job(connection: Connection, key: str, *, hold: Hold | None = None) -> Job:
    """The job of an id, or the newest of a name, as it stands in this transaction; held if that is wanted.

    Raises NotFound.
    """
    row = None
    if is_id(key) or is_name(key):
        wanted = jobs.c.id == key if is_id(key) else jobs.c.name == key
        query = select_jobs().where(wanted).order_by(jobs.c.sequence.desc()).limit(1)
        row = connection.execute(held_row(query, hold, jobs)).first()
    if row is None:
        raise NotFound("job", key)
    return record(Job, row)


def move(
    connection: Connection, now: datetime, target: JobStatus, *conditions: ColumnElement[bool], **values: Any
) -> str | None:
    """The id of the job that meets the conditions and is now `target`; None when there is none that may become it."""
    changed = (
        update(jobs)
        .where(jobs.c.status.in_([source.value for source in sources_of(target)]), *conditions)
        .values(status=target.value, **(_settled(now, target) | values))
        .returning(jobs.c.id, jobs.c.attempt, jobs.c.error)
    )
    row = connection.execute(changed).first()
    if row is None:
        return None
    told = {"status": target.value, "attempt": row.attempt}
    if row.error is not None:
        told["error"] = row.error
    append_event(connection, now, row.id, "status", told)
    return str(row.id)


def _settled(now: datetime, target: JobStatus) -> dict[str, Any]:
    """What a status brings along, as the table's checks demand."""
    if target is JobStatus.RUNNING:
        return {"started_at": func.coalesce(jobs.c.started_at, now)}
    at_rest: dict[str, Any] = {"worker": None, "cancel_requested": False, "pause_requested": False}
    return at_rest | {"finished_at": now} if target in FINISHED else at_rest
