"""Calls for jobs: queue, look, cancel, pause, resume, delete. What a job reports is in `job_history`.

Knows HTTP and the store's functions, no SQL. Invariant: a job that is queued can work, as far as its settings and the
size of its corpus tell; every setting is in the answer.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from app import presets
from app.documents import JobDocument, ListDocument, job_document, page_document
from app.feasibility import Place, check_feasible, places_of
from app.openapi import problems
from app.routes.dependencies import After, Configured, JobKey, Limit, StoredIn, Watching
from app.schemas import JobRequest, ModelSettings, TrainingSettings
from app.store import jobs
from app.store.corpora import Corpus
from app.store.job_rows import Job
from app.store.job_state import JobStatus
from app.store.jobs import Order
from models.config import ModelConfig, TrainingConfig

router = APIRouter(tags=["jobs"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Any text of your own: the same one with the same request gives the first job again.",
    ),
]


@router.post(
    "/jobs",
    status_code=202,
    summary="Train a network",
    responses=problems(404, 409, 422, 429, 507),
)
def create_job(
    database: StoredIn,
    settings: Configured,
    watch: Watching,
    response: Response,
    request: JobRequest,
    idempotency_key: IdempotencyKey = None,
) -> JobDocument:
    """Queue a training. Only `corpus` is required; the answer holds every setting that was chosen.

    The example trains for 12 seconds, to see how it goes. More minutes make better text.
    """
    job, new = jobs.enqueue_planned(
        database,
        request.corpus,
        partial(_order, request, places_of(watch.workers_seen())),
        idempotency=None if idempotency_key is None else (idempotency_key, _fingerprint(request)),
        queue_limit=settings.max_queued_jobs,
    )
    response.headers["Location"] = f"/jobs/{job.id}"
    if not new:
        response.headers["Idempotent-Replayed"] = "true"
    return job_document(job)


def _order(request: JobRequest, places: Sequence[Place], corpus: Corpus) -> Order:
    """The job that a request means. Raises Problem for one that cannot work."""
    model, training = _resolved(request, corpus)
    check_feasible(model, training, corpus, places)
    name = request.name if request.name is not None else corpus.name
    return Order(name, model.as_dict(), training.as_dict())


def _resolved(request: JobRequest, corpus: Corpus) -> tuple[ModelConfig, TrainingConfig]:
    """Every setting, in range."""
    model, training = request.model or ModelSettings(), request.training or TrainingSettings()
    return presets.resolve(request.preset, model.given(), training.given(), corpus.characters)


def _fingerprint(request: JobRequest) -> str:
    """Equal for requests that say the same, in whatever order."""
    said = json.dumps(request.model_dump(exclude_unset=True), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


@router.get("/jobs", summary="List jobs", responses=problems(422))
def list_jobs(
    database: StoredIn,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[JobStatus | None, Query(description="Only jobs that stand so.")] = None,
) -> ListDocument[JobDocument]:
    """All jobs, newest first."""
    return page_document(jobs.list_jobs(database, limit, after, status), job_document)


@router.get("/jobs/{id}", summary="Look at a job", responses=problems(404, 422))
def get_job(database: StoredIn, id: JobKey) -> JobDocument:
    """Where it stands: its place in the queue, its progress, its best checkpoint, its error."""
    return job_document(jobs.get_job(database, id))


@router.post(
    "/jobs/{id}/cancel",
    summary="Cancel a job",
    responses=problems(404, 409, 422, 507, ok={202: {"model": JobDocument, "description": "Its worker will end it."}}),
)
def cancel_job(database: StoredIn, response: Response, id: JobKey) -> JobDocument:
    """End a job for good; its checkpoints stay. 409 when it is finished already."""
    return _asked(jobs.cancel_job(database, id), response)


@router.post(
    "/jobs/{id}/pause",
    summary="Pause a job",
    responses=problems(404, 409, 422, 507, ok={202: {"model": JobDocument, "description": "Its worker will stop it."}}),
)
def pause_job(database: StoredIn, response: Response, id: JobKey) -> JobDocument:
    """Stop a job so that it can go on later from where it was."""
    return _asked(jobs.pause_job(database, id), response)


@router.post("/jobs/{id}/resume", summary="Resume a job", responses=problems(404, 409, 422, 507))
def resume_job(database: StoredIn, id: JobKey) -> JobDocument:
    """Queue a paused job again."""
    return job_document(jobs.resume_job(database, id))


@router.delete("/jobs/{id}", status_code=204, summary="Delete a job", responses=problems(404, 409, 422, 507))
def delete_job(database: StoredIn, id: JobKey) -> None:
    """Remove a job and its history; its model stays. 409 while it runs: cancel it first."""
    jobs.delete_job(database, id)


def _asked(job: Job, response: Response) -> JobDocument:
    """202 as long as the wish waits for the worker."""
    if job.status is JobStatus.RUNNING:
        response.status_code = 202
    return job_document(job)
