"""Models and their checkpoints."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.store.blobs import Blob
from app.store.database import Database
from app.store.pages import Page


@dataclass(frozen=True, slots=True)
class Model:
    """A name for the checkpoints that a job produced, or that were uploaded."""

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


def get_model(database: Database, key: str) -> Model:
    """The model of an id, or the newest of a name. Raises NotFound."""
    raise NotImplementedError


def list_models(database: Database, limit: int, after: str | None = None) -> Page[Model]:
    raise NotImplementedError


def delete_model(database: Database, key: str) -> None:
    """Raises NotFound; Conflict while its job is not finished or an unfinished job starts from one of its checkpoints."""
    raise NotImplementedError


def list_checkpoints(database: Database, model_key: str) -> list[Checkpoint]:
    """All of a model's checkpoints, newest first."""
    raise NotImplementedError


def find_checkpoint(database: Database, reference: str) -> tuple[Model, Checkpoint]:
    """The checkpoint of `model`, `model@step` (model: id or name) or of a checkpoint's id; without a step the best sound one.

    Raises NotFound; Corrupted when the very checkpoint asked for was quarantined.
    """
    raise NotImplementedError


def read_checkpoint(database: Database, checkpoint: Checkpoint) -> Iterator[bytes]:
    """The file in pieces of at most 1 MiB. Raises NotFound, or Corrupted before the last piece is given out."""
    raise NotImplementedError


def quarantine(database: Database, checkpoint: Checkpoint) -> None:
    """Never resolved to again; the next best takes its place. Call it when reading raised Corrupted."""
    raise NotImplementedError


def add_model(database: Database, blob: Blob, name: str, info: dict[str, Any]) -> Model:
    """The model of an uploaded checkpoint file. `info`: config, vocabulary_size, parameters, step, train_loss, val_loss."""
    raise NotImplementedError
