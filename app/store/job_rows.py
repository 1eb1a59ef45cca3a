"""Jobs as they are read, and the one statement that moves them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.store.job_state import JobStatus


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
