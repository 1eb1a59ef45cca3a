"""The rows of checkpoints, and which of them are kept.

Works within its callers' transactions. Invariants: one of a model's sound checkpoints is marked best, and the job that
made the model tells the same one; a model has one checkpoint per step.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, select, update

from app.store.blobs import Blob, drop, keep
from app.store.database import Database
from app.store.holding import held_row
from app.store.metrics import finite
from app.store.names import new_id
from app.store.rows import record
from app.store.schema import LIVE, checkpoints, jobs, models

KEPT_NEWEST = 5

BEST_FIRST = (
    checkpoints.c.val_loss.is_(None),
    checkpoints.c.val_loss,
    (checkpoints.c.best & checkpoints.c.val_loss.is_not(None)).desc(),
    checkpoints.c.sequence.desc(),
)
"""The lowest validation loss, the marked one until it is beaten; without validation the newest."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights at a step, usable for generation unless `corrupted`."""

    id: str
    model_id: str
    step: int
    train_loss: float | None
    val_loss: float | None
    bytes: int
    best: bool
    corrupted: bool
    created_at: datetime
    blob_id: str


def insert_checkpoint(
    database: Database,
    connection: Connection,
    model_id: str,
    blob: Blob,
    *,
    step: int,
    train_loss: float | None,
    val_loss: float | None,
) -> Checkpoint | None:
    """The new checkpoint, in place of one of the same step (a job that had to start anew comes by again).

    None, and the new one is not kept, when the old one of the step is the model's best and the new one does worse, or
    an unfinished job starts from the old one.
    """
    hold_model(connection, model_id)
    of_step, val_loss = (checkpoints.c.model_id == model_id) & (checkpoints.c.step == step), finite(val_loss)
    old = connection.execute(select(checkpoints).where(of_step)).first()
    if old is not None and (_is_pinned(connection, old.id) or (old.best and _is_lower(old.val_loss, val_loss))):
        return None
    _delete(database, connection, of_step)
    keep(connection, blob)
    values = {
        "id": new_id("checkpoint"),
        "model_id": model_id,
        "step": step,
        "train_loss": finite(train_loss),
        "val_loss": val_loss,
        "bytes": blob.bytes,
        "best": False,
        "corrupted": False,
        "created_at": database.now(),
        "blob_id": blob.id,
    }
    connection.execute(insert(checkpoints).values(values))
    _mark_best(connection, model_id)
    return record(Checkpoint, connection.execute(select(checkpoints).where(checkpoints.c.id == values["id"])).one())


def hold_model(connection: Connection, model_id: str) -> None:
    """Its checkpoints are this transaction's to change until its end, and so is what its job tells of them."""
    of_model = models.c.id == model_id
    job = select(jobs.c.id).where(jobs.c.id == select(models.c.job_id).where(of_model).scalar_subquery())
    connection.execute(held_row(job, "to change", jobs))
    connection.execute(held_row(select(models.c.id).where(of_model), "to change", models))


def _is_pinned(connection: Connection, checkpoint_id: str) -> bool:
    return connection.execute(pinning_job(checkpoints.c.id == checkpoint_id)).first() is not None


def _is_lower(loss: float | None, other: float | None) -> bool:
    return loss is not None and (other is None or loss < other)


def _mark_best(connection: Connection, model_id: str) -> None:
    """The model's best checkpoint is marked, and told of its job.

    Decided here, over all that are stored: a training that had to start anew knows only what it has seen itself.
    """
    of_model = checkpoints.c.model_id == model_id
    best = connection.execute(
        select(checkpoints).where(of_model, ~checkpoints.c.corrupted).order_by(*BEST_FIRST).limit(1)
    ).first()
    connection.execute(update(checkpoints).where(of_model, checkpoints.c.best).values(best=False))
    if best is not None:
        connection.execute(update(checkpoints).where(checkpoints.c.id == best.id).values(best=True))
    job = jobs.c.id == select(models.c.job_id).where(models.c.id == model_id).scalar_subquery()
    told = {"best_step": best and best.step, "best_val_loss": best and best.val_loss}
    connection.execute(update(jobs).where(job).values(told))


def retain(database: Database, connection: Connection, model_id: str) -> None:
    """Only the best, the newest five, and those that an unfinished job starts from are left.

    Newest is what was stored last, not the highest step: a job that had to start anew counts from 0 again.
    """
    of_model = checkpoints.c.model_id == model_id
    newest = select(checkpoints.c.id).where(of_model).order_by(checkpoints.c.sequence.desc()).limit(KEPT_NEWEST)
    needed = pinning_job().correlate(checkpoints).exists()
    _delete(database, connection, of_model & ~checkpoints.c.best & checkpoints.c.id.not_in(newest) & ~needed)


def pinning_job(*conditions: ColumnElement[bool]) -> Select[tuple[str]]:
    """The ids of unfinished jobs that start from a checkpoint that meets the conditions."""
    starting = jobs.c.status.in_(LIVE) & (jobs.c.from_checkpoint_id == checkpoints.c.id)
    return select(jobs.c.id).where(starting, *conditions)


def mark_corrupted(connection: Connection, checkpoint_id: str) -> None:
    """The checkpoint is known to be damaged; the next best takes its place."""
    this = checkpoints.c.id == checkpoint_id
    model_id = connection.execute(select(checkpoints.c.model_id).where(this)).scalar()
    if model_id is None:
        return
    hold_model(connection, model_id)
    connection.execute(update(checkpoints).where(this).values(corrupted=True, best=False))
    _mark_best(connection, model_id)


def _delete(database: Database, connection: Connection, condition: ColumnElement[bool]) -> None:
    gone = connection.execute(delete(checkpoints).where(condition).returning(checkpoints.c.blob_id)).scalars().all()
    drop(database, connection, gone)
