"""The service's side of the queue: what a person may ask of a job.

Knows nothing of workers but the flags that they read. A `key` is a job's id, or a name, which means the newest job of
that name. Invariant: what is refused has changed nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from app.fault_points import fault_point
from app.store.blobs import clean_up, drop
from app.store.corpora import Corpus, find_corpus
from app.store.database import Database
from app.store.errors import Conflict, NotFound
from app.store.events import append_event
from app.store.holding import Lock, take
from app.store.job_rows import Job, find_job, move, read_job, select_jobs
from app.store.job_state import JobStatus
from app.store.names import check_name, new_id
from app.store.notices import tell
from app.store.pages import Page, read_page
from app.store.queue import check_room
from app.store.schema import idempotency_keys, jobs
from app.store.trained_models import find_checkpoint_in

__all__ = [
    "Job",
    "Order",
    "cancel_job",
    "delete_job",
    "enqueue",
    "enqueue_planned",
    "first_of_key",
    "get_job",
    "list_jobs",
    "pause_job",
    "resume_job",
]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be trained on a corpus, and how the job is called."""

    name: str
    model: dict[str, Any]
    training: dict[str, Any]
    new_characters: int | None = None
    """Of the corpus, that the checkpoint from which the job starts does not know."""
    metadata: dict[str, str] | None = None
    """What its owner notes beside it. Names hold no quotation mark and no backslash: databases are asked for them."""


def enqueue(
    database: Database, *, name: str, corpus_id: str, model: dict[str, Any], training: dict[str, Any], **how: Any
) -> tuple[Job, bool]:
    """As `enqueue_planned`, for an order that does not depend on the corpus."""
    return enqueue_planned(database, corpus_id, lambda _: Order(name, model, training), **how)


def enqueue_planned(
    database: Database,
    corpus_key: str,
    plan: Callable[[Corpus], Order],
    *,
    from_checkpoint: str | None = None,
    idempotency: tuple[str, str] | None = None,
    queue_limit: int = 1000,
    key_id: str | None = None,
    request_id: str | None = None,
) -> tuple[Job, bool]:
    """The queued job, and whether it is new (False: the same idempotency key came with the same request before).

    `plan` is asked within the transaction, so keep it short; what it raises refuses the job. `idempotency` is the key
    and the request's SHA-256: one that is known is honoured whatever has become of the corpus since. Raises NotFound
    (corpus or checkpoint), InvalidName, QueueFull, Corrupted (the checkpoint), or Conflict for a key that came with
    another request. `key_id` is the API key whose job it is: its own limit holds too, and idempotency keys are its own.
    `request_id` is what the logs call the request.
    """
    with database.write() as connection:
        take(connection, Lock.QUEUE)  # how many wait, and which idempotency keys came before, is decided one by one
        first = _first_of_key(connection, idempotency, key_id)
        if first is not None:
            return first, False
        corpus = find_corpus(connection, corpus_key, hold="as it is")
        order = plan(corpus)
        check_name(order.name)
        check_room(connection, queue_limit, key_id)
        job_id = _insert(database, connection, corpus, from_checkpoint, order, key_id=key_id, request_id=request_id)
        if idempotency is not None:
            key, request_sha256 = idempotency
            row = {
                "key": _own(key, key_id),
                "request_sha256": request_sha256,
                "job_id": job_id,
                "created_at": database.now(),
            }
            connection.execute(insert(idempotency_keys).values(row))
        job = read_job(connection, job_id)
        fault_point("job.queueing")
    fault_point("job.queued")
    return job, True


def first_of_key(database: Database, idempotency: tuple[str, str] | None, *, key_id: str | None = None) -> Job | None:
    """The job that came of an idempotency key before; None if it is a new one. Raises Conflict as `enqueue_planned`."""
    with database.read() as connection:
        return _first_of_key(connection, idempotency, key_id)


def _own(key: str, key_id: str | None) -> str:
    """An idempotency key as it is stored. Of an API key's a hash: both together would be too long for the column."""
    return key if key_id is None else f"{key_id}/{sha256(key.encode()).hexdigest()}"


def _first_of_key(connection: Connection, idempotency: tuple[str, str] | None, key_id: str | None) -> Job | None:
    if idempotency is None:
        return None
    key, request_sha256 = idempotency
    known = connection.execute(select(idempotency_keys).where(idempotency_keys.c.key == _own(key, key_id))).first()
    if known is None:
        return None
    if known.request_sha256 != request_sha256:
        raise Conflict("this idempotency key came with another request before")
    try:
        return read_job(connection, known.job_id)
    except NotFound:  # deleted between the two looks, its keys with it
        return None


def _insert(
    database: Database,
    connection: Connection,
    corpus: Corpus,
    from_checkpoint: str | None,
    order: Order,
    **origin: str | None,
) -> str:
    job_id, now = new_id("job"), database.now()
    start: dict[str, Any] = {}
    if from_checkpoint is not None:
        model, checkpoint = find_checkpoint_in(connection, from_checkpoint, hold="as it is")
        start = {"from_checkpoint": f"{model.id}@{checkpoint.step}", "from_checkpoint_id": checkpoint.id}
    fresh = {
        "id": job_id,
        "status": JobStatus.QUEUED.value,
        "corpus_id": corpus.id,
        "corpus_name": corpus.name,
        "progress": {},
        "attempt": 0,
        "heartbeat": 0,
        "crashes": 0,
        "cancel_requested": False,
        "pause_requested": False,
        "created_at": now,
    }
    connection.execute(insert(jobs).values(**fresh, **start, **origin, **asdict(order)))
    append_event(connection, now, job_id, "status", {"status": JobStatus.QUEUED.value, "attempt": 0})
    return job_id


def get_job(database: Database, key: str) -> Job:
    """The job of an id, or the newest of a name, as it stands. Raises NotFound."""
    with database.read() as connection:
        return find_job(connection, key)


def list_jobs(
    database: Database,
    limit: int,
    after: str | None = None,
    status: JobStatus | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Page[Job]:
    """Newest first, those older than the job with the id `after`, of one status if given. Raises InvalidCursor.

    With `metadata` those that have all of these entries; with none of them (but not None) those that have none at all.
    """
    if any("\0" in word for entry in (metadata or {}).items() for word in entry):
        return Page([], None)  # no job has it, and not every database can be asked
    query = select_jobs() if status is None else select_jobs().where(jobs.c.status == status.value)
    if metadata is not None and not metadata:
        query = query.where(jobs.c.metadata.is_(None))
    for name, value in (metadata or {}).items():
        query = query.where(jobs.c.metadata[name].as_string() == value)
    with database.read() as connection:
        return read_page(connection, Job, query, jobs, limit, after)


def cancel_job(database: Database, key: str) -> Job:
    """Cancelled at once, or `cancel_requested` of a running job. Raises NotFound; Conflict when it is finished."""
    with database.write() as connection:
        job = find_job(connection, key, hold="to change")
        if job.status is JobStatus.RUNNING:
            _ask(connection, job, cancel_requested=True)
        else:
            _move(database, connection, job, JobStatus.CANCELLED, "cancel")
        return read_job(connection, job.id)


def pause_job(database: Database, key: str) -> Job:
    """Paused at once, or `pause_requested` of a running job.

    Raises NotFound; Conflict when it is paused, finished or being cancelled.
    """
    with database.write() as connection:
        job = find_job(connection, key, hold="to change")
        if job.cancel_requested:
            raise Conflict(f"cannot pause {job.id}: it is being cancelled")
        if job.status is JobStatus.RUNNING:
            _ask(connection, job, pause_requested=True)
        else:
            _move(database, connection, job, JobStatus.PAUSED, "pause")
        return read_job(connection, job.id)


def resume_job(database: Database, key: str, queue_limit: int = 1000) -> Job:
    """Queued again, at its old place. Raises NotFound; Conflict when it is not paused (yet); QueueFull."""
    with database.write() as connection:
        take(connection, Lock.QUEUE)
        job = find_job(connection, key, hold="to change")
        if job.status is JobStatus.RUNNING:  # queued may follow on running too, but not at a person's word
            raise Conflict(f"cannot resume {job.id}: it is {'being paused' if job.pause_requested else 'running'}")
        if job.status is JobStatus.PAUSED:  # or pausing would be a way around the limits
            check_room(connection, queue_limit, job.key_id)
        _move(database, connection, job, JobStatus.QUEUED, "resume")
        return read_job(connection, job.id)


def _ask(connection: Connection, job: Job, **flags: bool) -> None:
    still_running = (jobs.c.id == job.id, jobs.c.status == JobStatus.RUNNING.value)
    if connection.execute(update(jobs).where(*still_running).values(**flags)).rowcount == 0:
        raise Conflict(f"{job.id} has just stopped running: look again")


def _move(database: Database, connection: Connection, job: Job, target: JobStatus, verb: str) -> None:
    if move(connection, database.now(), target, jobs.c.id == job.id, jobs.c.status == job.status.value) is None:
        raise Conflict(f"cannot {verb} {job.id}: it is {job.status}")


def delete_job(database: Database, key: str) -> None:
    """Gone with its events, metrics and resume point; its model stays. Raises NotFound; Conflict while it runs."""
    with database.write() as connection:
        job = find_job(connection, key, hold="to change")
        if job.status is JobStatus.RUNNING:
            raise Conflict(f"cannot delete {job.id}: it is running, cancel it first")
        gone = delete(jobs).where(jobs.c.id == job.id).returning(jobs.c.resume_blob_id)
        blob_id = connection.execute(gone).scalar_one()
        if blob_id is not None:
            drop(database, connection, [blob_id])
        tell(connection, job.id)
        fault_point("job.deleting")
    fault_point("job.deleted")
    clean_up(database, [] if blob_id is None else [blob_id])
