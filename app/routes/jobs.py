"""Calls for jobs: queue, look, cancel, pause, resume, delete. What a job reports is in `job_history`.

Knows HTTP and the store's functions, no SQL. Invariant: every setting of a job is in the answer.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.documents import JobDocument, ListDocument, job_document, page_document
from app.job_schemas import JobRequest
from app.openapi import problems
from app.routes.dependencies import After, Caller, Configured, JobKey, Limit, StoredIn, Watching
from app.routes.guarded import GuardedRoute
from app.routes.queueing import IdempotencyKey, keyed, queue_job
from app.store import jobs
from app.store.job_rows import Job
from app.store.job_state import JobStatus

router = APIRouter(tags=["jobs"], route_class=GuardedRoute)


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
    caller: Caller,
    response: Response,
    request: JobRequest,
    idempotency_key: IdempotencyKey = None,
) -> JobDocument:
    """Queue a training. Only `corpus` is required; the answer holds every setting that was chosen.

    The example trains for 12 seconds, to see how it goes. More minutes make better text.

    With `from_checkpoint` a network that is there already goes on learning, from the same corpus or another one, as in
    `{"corpus": "my-notes", "from_checkpoint": "shakespeare"}`. It makes a model of its own; the old one stays as it is.
    The network is the checkpoint's, normalization included: `model` may change its `dropout` alone. Characters that it
    does not know extend its vocabulary; `new_characters` tells how many. The checkpoint is kept until the job is done.
    """
    key = keyed(idempotency_key, request)
    job, new = queue_job(database, settings, watch, caller, request, key)
    response.headers["Location"] = f"/jobs/{job.id}"
    if not new:
        response.headers["Idempotent-Replayed"] = "true"
    return job_document(job)


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


@router.post("/jobs/{id}/resume", summary="Resume a job", responses=problems(404, 409, 422, 429, 507))
def resume_job(database: StoredIn, settings: Configured, id: JobKey) -> JobDocument:
    """Queue a paused job again. 429 if as many jobs wait as may, in all or of its API key."""
    return job_document(jobs.resume_job(database, id, settings.max_queued_jobs))


@router.delete(
    "/jobs/{id}",
    status_code=204,
    response_class=Response,
    summary="Delete a job",
    responses=problems(404, 409, 422, 507),
)
def delete_job(database: StoredIn, id: JobKey) -> None:
    """Remove a job and its history; its model stays. 409 while it runs: cancel it first."""
    jobs.delete_job(database, id)


def _asked(job: Job, response: Response) -> JobDocument:
    """202 as long as the wish waits for the worker."""
    if job.status is JobStatus.RUNNING:
        response.status_code = 202
    return job_document(job)
