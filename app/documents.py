"""What answers say: the JSON documents of corpora, jobs, models and lists, made from the store's rows.

Knows the rows, no database. Invariant: the fields named in the design keep their names; a client may rely on each being
there, with null for what is not known.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from app.store.corpora import Added, Corpus
from app.store.job_rows import Job
from app.store.pages import Page
from app.store.trained_models import Checkpoint, Model

T = TypeVar("T")
Row = TypeVar("Row")


class Document(BaseModel):
    """An answer. Read from the attributes of a row where they agree."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class ListDocument(Document, Generic[T]):
    """A page of a list, newest first."""

    data: list[T]
    next: str | None = Field(description="Give it as `after` for the next page; null at the end.")


class CorpusDocument(Document):
    """An uploaded text."""

    id: str
    name: str
    bytes: int
    characters: int = Field(description="Unicode code points.")
    vocabulary_size: int = Field(description="Different characters.")
    sha256: str = Field(description="Of the bytes, without a byte order mark.")
    preview: str = Field(description="The beginning of the text.")
    created_at: datetime


class UploadedCorpusDocument(CorpusDocument):
    """A text that was just uploaded."""

    byte_order_mark_dropped: bool = Field(
        description="The file began with UTF-8's byte order mark (EF BB BF), which is no part of the text."
    )
    notice: str | None = Field(
        description="Set when the text was here already under another name than the one asked for: it keeps that name."
    )


class Best(Document):
    """The step with the lowest validation loss so far; its checkpoint, stored a moment later, is the default."""

    step: int
    val_loss: float | None = Field(description="Nats per character; null if nothing was kept for validation.")


class ProgressDocument(Document):
    """How far a job is; null for what is not known yet."""

    step: int = 0
    steps: int | None = Field(None, description="Planned; with a budget in minutes it is corrected on the way.")
    epoch: float | None = None
    fraction: float = Field(0.0, description="Share of the budget used, 0 to 1.")
    train_loss: float | None = Field(
        None, description="Nats per character; with `softmax_samples` an estimate that is a little too low."
    )
    val_loss: float | None = Field(None, description="Nats per character, over the whole vocabulary.")
    bits_per_character: float | None = Field(
        None, description="Of the validation loss, or of the training loss as long as there is none."
    )
    characters_per_second: float | None = None
    eta_seconds: float | None = None
    memory_bytes: int | None = Field(None, description="Peak of the training process so far; see the metrics.")
    setbacks: int = Field(
        0,
        description="Times that a loss, gradient or weight was not a finite number: training then goes back to its "
        "last resume point and on with half the learning rate, and fails as `diverged` the fourth time.",
    )
    machines: list[str] = Field(
        [],
        description="The kinds of machine that trained, each from where the one before it had stopped. With more than "
        "one the weights are no longer, to the bit, those of an undisturbed training.",
    )


class JobDocument(Document):
    """A request to train, and where it stands."""

    id: str
    name: str
    status: str = Field(description="queued, running, paused, succeeded, failed or cancelled.")
    place: int | None = Field(
        description="In the queue, from 1; null unless queued. API keys take turns, so jobs that another key queues "
        "later may come before it."
    )
    cancel_requested: bool
    pause_requested: bool
    corpus: str | None = Field(description="Its id; null once it is deleted.")
    corpus_name: str
    model: dict[str, Any] = Field(description="Every setting of the network.")
    training: dict[str, Any] = Field(description="Every setting of the training.")
    from_checkpoint: str | None = Field(
        description="The checkpoint that it starts from, `<id of the model>@<step>`, as it was when the job was queued."
    )
    new_characters: int | None = Field(
        description="Characters of the corpus that the checkpoint did not know; null without one."
    )
    vocabulary_size: int | None = Field(
        description="Characters that the network knows, the checkpoint's included; null until training has begun."
    )
    progress: ProgressDocument
    best: Best | None
    model_id: str | None = Field(description="The model it has produced, from the first checkpoint on.")
    model_name: str | None
    error: dict[str, Any] | None = Field(description="Why it failed: `code` and `detail`.")
    attempt: int
    worker: str | None
    request_id: str | None = Field(
        description="The `X-Request-ID` of the request that queued it, which the log lines of its training bear; null "
        "for jobs of before Charsmith kept it."
    )
    metadata: dict[str, str] = Field(description="Notes of whoever queued it.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class CheckpointDocument(Document):
    """Weights at one step."""

    id: str
    step: int
    train_loss: float | None
    val_loss: float | None
    bytes: int
    best: bool
    corrupted: bool = Field(description="Found damaged when it was read; no longer used.")
    created_at: datetime


class ModelDocument(Document):
    """A name for checkpoints, and what they have in common."""

    id: str
    name: str
    job_id: str | None
    corpus_id: str | None
    config: dict[str, Any]
    vocabulary_size: int
    parameters: int
    best: Best | None
    latest_step: int | None
    created_at: datetime


class MetricDocument(Document):
    """What is known of one step; losses in nats per character."""

    step: int
    epoch: float | None
    train_loss: float | None
    val_loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    characters_per_second: float | None
    seconds: float | None
    memory_bytes: int | None = Field(
        description="Peak of the training process so far: on a CPU its resident memory, on a CUDA device what its "
        "tensors took there."
    )


class MetricsDocument(Document):
    """A job's whole history."""

    data: list[MetricDocument]


class CheckpointsDocument(Document):
    """All checkpoints of a model, newest first."""

    data: list[CheckpointDocument]


def page_document(page: Page[Row], make: Callable[[Row], T]) -> ListDocument[T]:
    """A page of rows as a page of documents."""
    return ListDocument[Any](data=[make(row) for row in page.data], next=page.next)


def corpus_document(corpus: Corpus) -> CorpusDocument:
    """A corpus as it is answered."""
    return CorpusDocument.model_validate(corpus)


def uploaded_document(added: Added, asked_name: str) -> UploadedCorpusDocument:
    """An upload as it is answered."""
    corpus, notice = corpus_document(added.corpus), None
    if corpus.name != asked_name:
        notice = f"This text was here already, and keeps its name {corpus.name!r}: {asked_name!r} was not taken for it."
    return UploadedCorpusDocument(**corpus.model_dump(), byte_order_mark_dropped=added.mark_dropped, notice=notice)


def job_document(job: Job) -> JobDocument:
    """A job as it is answered."""
    return JobDocument(
        id=job.id,
        name=job.name,
        status=job.status,
        place=job.place,
        cancel_requested=job.cancel_requested,
        pause_requested=job.pause_requested,
        corpus=job.corpus_id,
        corpus_name=job.corpus_name,
        model=job.model,
        training=job.training,
        from_checkpoint=job.from_checkpoint,
        new_characters=job.new_characters,
        vocabulary_size=job.progress.get("vocabulary_size"),
        progress=_progress(job.progress),
        best=best_of(job.best_step, job.best_val_loss),
        model_id=job.model_id,
        model_name=job.name if job.model_id else None,
        error=job.error,
        attempt=job.attempt,
        worker=job.worker,
        request_id=job.request_id,
        metadata=job.metadata or {},
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _progress(progress: Mapping[str, Any]) -> ProgressDocument:
    known = {name: progress[name] for name in ProgressDocument.model_fields if progress.get(name) is not None}
    loss = next((known[name] for name in ("val_loss", "train_loss") if name in known), None)
    if loss is not None:
        known["bits_per_character"] = loss / math.log(2)
    return ProgressDocument(**known)


def best_of(step: int | None, val_loss: float | None) -> Best | None:
    """The best checkpoint, if there is one."""
    return None if step is None else Best(step=step, val_loss=val_loss)


def model_document(model: Model) -> ModelDocument:
    """A model as it is answered."""
    return ModelDocument(
        id=model.id,
        name=model.name,
        job_id=model.job_id,
        corpus_id=model.corpus_id,
        config=model.config,
        vocabulary_size=model.vocabulary_size,
        parameters=model.parameters,
        best=best_of(model.best_step, model.best_val_loss),
        latest_step=model.latest_step,
        created_at=model.created_at,
    )


def checkpoints_document(checkpoints: Sequence[Checkpoint]) -> CheckpointsDocument:
    """A model's checkpoints as they are answered."""
    return CheckpointsDocument(data=[CheckpointDocument.model_validate(checkpoint) for checkpoint in checkpoints])
