"""Jobs, their events and checkpoints as OpenAI's dialect tells them.

Knows the rows, no database. Invariant: what OpenAI's API would tell is there, with null for what is not known; what it
has no word for stands beside it under our own name.
"""

import time
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.documents import ProgressDocument, job_document
from app.openai.lists import Item
from app.presets import SIZES, learning_rate
from app.store.events import Event
from app.store.job_rows import Job
from app.store.job_state import FINISHED, JobStatus
from app.store.trained_models import Checkpoint
from models.config import ModelConfig

ANY_SIZE = "auto"
EVENT = "event_"
"""Before an event's number: ids are texts."""


class HyperparametersDocument(BaseModel):
    """What OpenAI's API calls so."""

    n_epochs: float | Literal["auto"]
    batch_size: int
    learning_rate_multiplier: float


class SupervisedDocument(BaseModel):
    """Settings of the one method."""

    hyperparameters: HyperparametersDocument


class MethodDocument(BaseModel):
    """How it is trained."""

    type: Literal["supervised"] = "supervised"
    supervised: SupervisedDocument


class JobErrorDocument(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: None = None


class FineTuningJobDocument(Item):
    """A job, and where it stands."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    status: str = Field(description="queued, running, paused, succeeded, failed or cancelled.")
    model: str = Field(description="The checkpoint or the size that it began with; auto where none has these numbers.")
    fine_tuned_model: str | None = Field(description="Id of the model that it made, once it is finished.")
    training_file: str = Field(description="Id of the corpus; once it is deleted its name, and that.")
    validation_file: None = None
    hyperparameters: HyperparametersDocument
    method: MethodDocument
    result_files: list[str] = Field(default=[])
    seed: int
    trained_tokens: int | None = Field(description="Characters that were read in training, once it is finished.")
    organization_id: Literal["charsmith"] = "charsmith"
    error: JobErrorDocument | None
    estimated_finish: int | None
    metadata: dict[str, str] = Field(description="Notes of whoever queued it.")
    integrations: list[str] = Field(default=[])
    name: str = Field(description="Of the job and its model.")
    network: dict[str, Any] = Field(description="Every setting of the network.")
    training: dict[str, Any] = Field(description="Every setting of the training.")
    progress: ProgressDocument


class JobEventDocument(Item):
    """Something that happened to a job."""

    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class CheckpointMetrics(BaseModel):
    """Losses in nats per character."""

    step: int
    train_loss: float | None
    valid_loss: float | None
    full_valid_loss: float | None


class JobCheckpointDocument(Item):
    """A checkpoint of a job's model."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str = Field(description="What completions take as `model`.")
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics


def fine_tuning_document(job: Job) -> FineTuningJobDocument:
    """A job as it is answered here."""
    hyperparameters, eta = _hyperparameters(job), job.progress.get("eta_seconds")
    finished, error = job.status in FINISHED, job.error or {}
    running = job.status is JobStatus.RUNNING and eta is not None
    return FineTuningJobDocument(
        id=job.id,
        created_at=_seconds(job.created_at),
        finished_at=None if job.finished_at is None else _seconds(job.finished_at),
        status=job.status,
        model=job.from_checkpoint or _size_of(job.model),
        fine_tuned_model=job.model_id if finished else None,
        # Of a deleted one no id is left, and its name may be another text's by now: nobody finds that under this.
        training_file=job.corpus_id or f"{job.corpus_name} (deleted)",
        hyperparameters=hyperparameters,
        method=MethodDocument(supervised=SupervisedDocument(hyperparameters=hyperparameters)),
        seed=job.training["seed"],
        trained_tokens=_trained_characters(job.progress) if finished else None,
        error=JobErrorDocument(code=error["code"], message=error["detail"]) if error else None,
        estimated_finish=int(time.time() + (eta or 0)) if running else None,
        metadata=job.metadata or {},
        name=job.name,
        network=job.model,
        training=job.training,
        progress=job_document(job).progress,
    )


def _size_of(network: dict[str, Any]) -> str:
    """The size whose numbers a network has."""
    sizes = {name: ModelConfig.from_dict(numbers).as_dict() for name, numbers in SIZES.items()}
    shape = ("cell", "hidden_size", "num_layers", "embedding_size")
    same = (name for name, of in sizes.items() if all(of[each] == network[each] for each in shape))
    return next(same, ANY_SIZE)


def _hyperparameters(job: Job) -> HyperparametersDocument:
    usual = learning_rate(ModelConfig.from_dict(job.model))
    return HyperparametersDocument(
        n_epochs=job.training["epochs"] or "auto",
        batch_size=job.training["batch_size"],
        learning_rate_multiplier=round(job.training["learning_rate"] / usual, 6),
    )


def _trained_characters(progress: dict[str, Any]) -> int | None:
    epoch, characters = progress.get("epoch"), progress.get("train_characters")
    return None if epoch is None or characters is None else round(epoch * characters)


def event_document(event: Event) -> JobEventDocument:
    """An event as it is answered here."""
    level, kind, message = _told(event.type, event.data)
    created = _seconds(event.created_at)
    return JobEventDocument(
        id=f"{EVENT}{event.id}", created_at=created, level=level, message=message, type=kind, data=event.data
    )


def event_number(key: str) -> int | None:
    """Which event an id means; None if it is none."""
    number = key.removeprefix(EVENT)
    return int(number) if key.startswith(EVENT) and number.isascii() and number.isdigit() and len(number) < 19 else None


def _told(
    kind: str, data: dict[str, Any]
) -> tuple[Literal["info", "warn", "error"], Literal["message", "metrics"], str]:
    match kind:
        case "status" if "error" in data:
            return "error", "message", f"The job failed: {data['error'].get('detail')}"
        case "status":
            return "info", "message", f"The job is {data['status']}."
        case "progress" if data["train_loss"] is not None:
            return "info", "metrics", f"Step {data['step']}: training loss {data['train_loss']:.4f}"
        case "evaluation" if data["val_loss"] is not None:
            return "info", "metrics", f"Step {data['step']}: validation loss {data['val_loss']:.4f}"
        case "sample":
            return "info", "message", f"Step {data['step']} writes: {data['text']}"
        case "checkpoint":
            return "info", "message", f"Step {data['step']}: a checkpoint was stored."
        case "setback":
            return "warn", "message", f"Step {data['step']}: not finite ({data['what']}), back to {data['to_step']}."
    return "info", "message", f"Step {data.get('step')}: {kind}"


def checkpoint_document(checkpoint: Checkpoint, job_id: str) -> JobCheckpointDocument:
    """A checkpoint as it is answered here."""
    loss = checkpoint.val_loss
    return JobCheckpointDocument(
        id=checkpoint.id,
        created_at=_seconds(checkpoint.created_at),
        fine_tuned_model_checkpoint=f"{checkpoint.model_id}@{checkpoint.step}",
        fine_tuning_job_id=job_id,
        step_number=checkpoint.step,
        metrics=CheckpointMetrics(
            step=checkpoint.step, train_loss=checkpoint.train_loss, valid_loss=loss, full_valid_loss=loss
        ),
    )


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
