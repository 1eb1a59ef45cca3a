"""Models: names for the checkpoints that a job produced, or that were uploaded.

Knows nothing of tensors. Invariant: a key resolves to the newest model of that name, and a model without a step to its
best checkpoint that is not known to be damaged.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, delete, insert, select

from app.fault_points import fault_point
from app.store.blobs import Blob, clean_up, drop, read_blob
from app.store.checkpoints import (
    BEST_FIRST,
    Checkpoint,
    insert_checkpoint,
    mark_corrupted,
    pinning_job,
)
from app.store.database import Database
from app.store.errors import Conflict, Corrupted, NotFound, StoreError
from app.store.holding import Hold, Lock, held_row, take
from app.store.names import check_name, is_id, is_name, new_id
from app.store.pages import Page, read_page
from app.store.rows import record
from app.store.schema import LIVE, checkpoints, jobs, models

__all__ = [
    "Checkpoint",
    "Model",
    "add_model",
    "delete_model",
    "find_checkpoint",
    "get_model",
    "list_checkpoints",
    "list_models",
    "quarantine",
    "read_checkpoint",
]

logger = logging.getLogger(__name__)

LATEST = "latest"
"""In the place of a step: the newest checkpoint, which need not be the best."""
HOW_TO_NAME = f"after the @ comes the step of a stored checkpoint, or {LATEST!r}"


@dataclass(frozen=True, slots=True)
class Model:
    """A name for checkpoints. The best and latest are those that can be used now."""

    id: str
    name: str
    job_id: str | None
    corpus_id: str | None
    config: dict[str, Any]
    vocabulary_size: int
    parameters: int
    best_step: int | None
    best_val_loss: float | None
    latest_step: int | None
    created_at: datetime


def get_model(database: Database, key: str) -> Model:
    """The model of an id, or the newest of a name. Raises NotFound."""
    with database.read() as connection:
        return _find_model(connection, key)


def list_models(database: Database, limit: int, after: str | None = None) -> Page[Model]:
    """Newest first, those older than the model with the id `after`. Raises InvalidCursor."""
    with database.read() as connection:
        return read_page(connection, Model, _select_models(), models, limit, after)


def list_checkpoints(database: Database, model_key: str) -> list[Checkpoint]:
    """All of a model's checkpoints, newest first. Raises NotFound."""
    with database.read() as connection:
        model = _find_model(connection, model_key)
        query = select(checkpoints).where(checkpoints.c.model_id == model.id).order_by(checkpoints.c.sequence.desc())
        return [record(Checkpoint, row) for row in connection.execute(query)]


def find_checkpoint(database: Database, reference: str) -> tuple[Model, Checkpoint]:
    """What a reference means: `model` (its best), `model@step` (model: id or name), or a checkpoint's id.

    Raises NotFound; Corrupted when the very checkpoint asked for was quarantined.
    """
    with database.read() as connection:
        return find_checkpoint_in(connection, reference)


def find_checkpoint_in(connection: Connection, reference: str, *, hold: Hold | None = None) -> tuple[Model, Checkpoint]:
    """As `find_checkpoint`, within a transaction, until whose end the model is held if that is wanted."""
    if reference.startswith("checkpoint_") and is_id(reference):
        found = connection.execute(select(checkpoints).where(checkpoints.c.id == reference)).first()
        if found is None:
            raise NotFound("checkpoint", reference)
        model = _find_model(connection, found.model_id, hold=hold)
        found = connection.execute(select(checkpoints).where(checkpoints.c.id == reference)).first()
    else:
        model_key, at, step = reference.partition("@")
        model = _find_model(connection, model_key, hold=hold)
        found = _checkpoint_of(connection, model.id, step if at else None)
    if found is None:
        raise NotFound("checkpoint", reference, HOW_TO_NAME if "@" in reference else "")
    if found.corrupted:
        raise Corrupted(found.blob_id)
    return model, record(Checkpoint, found)


def _checkpoint_of(connection: Connection, model_id: str, step: str | None) -> Any:
    query = select(checkpoints).where(checkpoints.c.model_id == model_id)
    if step is None:
        query = query.where(~checkpoints.c.corrupted).order_by(*BEST_FIRST).limit(1)
    elif step == LATEST:
        query = query.where(~checkpoints.c.corrupted).order_by(checkpoints.c.sequence.desc()).limit(1)
    elif step.isascii() and step.isdigit() and len(step) <= 18:  # more digits are no 64-bit number
        query = query.where(checkpoints.c.step == int(step))
    else:
        return None
    return connection.execute(query).first()


def _find_model(connection: Connection, key: str, *, hold: Hold | None = None) -> Model:
    row = None
    if is_id(key) or is_name(key):
        wanted: ColumnElement[bool] = models.c.id == key if is_id(key) else models.c.name == key
        query = _select_models().where(wanted).order_by(models.c.sequence.desc()).limit(1)
        row = connection.execute(held_row(query, hold, models)).first()
    if row is None:
        raise NotFound("model", key)
    return record(Model, row)


def _select_models() -> Select[Any]:
    def first(column: Column[Any], *order: ColumnElement[Any]) -> ColumnElement[Any]:
        sound = select(column).where(checkpoints.c.model_id == models.c.id, ~checkpoints.c.corrupted)
        return sound.order_by(*order).limit(1).correlate(models).scalar_subquery()

    return select(
        models,
        first(checkpoints.c.step, *BEST_FIRST).label("best_step"),
        first(checkpoints.c.val_loss, *BEST_FIRST).label("best_val_loss"),
        first(checkpoints.c.step, checkpoints.c.sequence.desc()).label("latest_step"),
    )


def read_checkpoint(database: Database, checkpoint: Checkpoint) -> Iterator[bytes]:
    """The file in pieces of at most 1 MiB. Raises NotFound at once; Corrupted before the last piece is given out."""
    return read_blob(database, checkpoint.blob_id)


def quarantine(database: Database, checkpoint: Checkpoint) -> bool:
    """The checkpoint is not resolved to again, the next best takes its place. For whom reading has raised Corrupted.

    False if that could not be stored: the caller was reading, and tells what it has read; the next one finds out anew.
    """
    try:
        with database.write() as connection:
            mark_corrupted(connection, checkpoint.id)
    except StoreError as error:
        logger.warning("%s is damaged, which could not be stored: %s", checkpoint.id, error)
        return False
    return True


def delete_model(database: Database, key: str) -> None:
    """Gone with its checkpoints, and their space given back.

    Raises NotFound; Conflict while its job is not finished, or an unfinished job starts from one of its checkpoints.
    """
    with database.write() as connection:
        model = _find_model(connection, key, hold="to change")
        _check_unneeded(connection, model)
        of_model = select(checkpoints.c.blob_id).where(checkpoints.c.model_id == model.id)
        blob_ids = connection.execute(of_model).scalars().all()
        connection.execute(delete(models).where(models.c.id == model.id))
        drop(database, connection, blob_ids)
        fault_point("model.deleting")
    fault_point("model.deleted")
    clean_up(database, blob_ids)


def _check_unneeded(connection: Connection, model: Model) -> None:
    training = select(jobs.c.id).where(jobs.c.id == model.job_id, jobs.c.status.in_(LIVE))
    starting = pinning_job(checkpoints.c.model_id == model.id)
    for query, what in ((training, "is training it"), (starting, "starts from it")):
        job_id = connection.execute(query).scalar()
        if job_id is not None:
            raise Conflict(f"job {job_id} {what}: cancel it first")


def add_model(database: Database, blob: Blob, name: str, info: Mapping[str, Any]) -> Model:
    """The model of an uploaded checkpoint file, which `write_blob` has stored and somebody has found valid.

    `info`: config, vocabulary_size, parameters, step, and optional train_loss, val_loss. Raises InvalidName.
    """
    check_name(name)
    with database.write() as connection:
        model_id = insert_model(connection, database.now(), name=name, info=info)
        insert_checkpoint(
            database,
            connection,
            model_id,
            blob,
            step=info["step"],
            train_loss=info.get("train_loss"),
            val_loss=info.get("val_loss"),
        )
        model = _find_model(connection, model_id)
        fault_point("model.naming")
    fault_point("model.named")
    return model


def insert_model(connection: Connection, now: datetime, *, name: str, info: Mapping[str, Any], **origin: Any) -> str:
    """The id of a new model without checkpoints: the caller adds the first in the same transaction."""
    take(connection, Lock.MODELS)  # they are seen in the order of their numbers, which pages go by
    model_id = new_id("model")
    values = {key: info[key] for key in ("config", "vocabulary_size", "parameters")}
    connection.execute(insert(models).values(id=model_id, name=name, created_at=now, **values, **origin))
    return model_id
