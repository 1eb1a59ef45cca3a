"""The rows of checkpoints, and which of them are kept.

Works within its callers' transactions. Invariants: at most one checkpoint of a model is marked best, none of a damaged
one; a model has one checkpoint per step.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, select, update

from app.store.blobs import Blob, drop, keep
from app.store.database import Database
from app.store.metrics import finite
from app.store.names import new_id
from app.store.rows import record
from app.store.schema import LIVE, checkpoints, jobs

KEPT_NEWEST = 5

BEST_FIRST = (
    checkpoints.c.best.desc(),
    checkpoints.c.val_loss.is_(None),
    checkpoints.c.val_loss,
    checkpoints.c.sequence.desc(),
)
"""The marked one; should that be damaged, the lowest validation loss; without validation the newest."""


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
    best: bool,
) -> Checkpoint:
    """The new checkpoint, in place of one of the same step (a job that had to start anew comes by again)."""
    _delete(database, connection, (checkpoints.c.model_id == model_id) & (checkpoints.c.step == step))
    if best:
        connection.execute(update(checkpoints).where(checkpoints.c.model_id == model_id).values(best=False))
    keep(connection, blob)
    values = {
        "id": new_id("checkpoint"),
        "model_id": model_id,
        "step": step,
        "train_loss": finite(train_loss),
        "val_loss": finite(val_loss),
        "bytes": blob.bytes,
        "best": best,
        "corrupted": False,
        "created_at": database.now(),
        "blob_id": blob.id,
    }
    return record(Checkpoint, connection.execute(insert(checkpoints).values(values).returning(checkpoints)).one())


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
    """The checkpoint is known to be damaged."""
    damaged = update(checkpoints).where(checkpoints.c.id == checkpoint_id)
    connection.execute(damaged.values(corrupted=True, best=False))


def _delete(database: Database, connection: Connection, condition: ColumnElement[bool]) -> None:
    gone = connection.execute(delete(checkpoints).where(condition).returning(checkpoints.c.blob_id)).scalars().all()
    drop(database, connection, gone)
