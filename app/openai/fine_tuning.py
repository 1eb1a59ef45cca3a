"""Fine-tuning jobs in OpenAI's dialect: the jobs, by another name.

Knows HTTP and the store's functions, no SQL. Invariant: a job's id is the same here and at `/jobs`, so whatever is
asked of it in one place is seen in the other.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from app.errors import Problem, invalid
from app.known_fields import ENTRY
from app.openai.dialect import PREFIX
from app.openai.job_documents import (
    FineTuningJobDocument,
    JobCheckpointDocument,
    JobEventDocument,
    checkpoint_document,
    event_document,
    event_number,
    fine_tuning_document,
)
from app.openai.job_requests import FineTuningRequest
from app.openai.lists import MOST_ITEMS, After, Limit, ListDocument, cut, list_document, page_document
from app.openapi import problems
from app.routes.dependencies import Caller, Configured, JobKey, StoredIn, Watching
from app.routes.guarded import GuardedRoute
from app.routes.queueing import IdempotencyKey, keyed, queue_job
from app.store import jobs, trained_models
from app.store.errors import InvalidCursor, NotFound
from app.store.events import events_before
from app.store.names import InvalidName
from models.config import InvalidConfig


def _noted(
    request: Request,
    metadata: Annotated[
        Literal["null"] | None,
        Query(description="`null`: jobs without any; `metadata[name]=value`, once or more often: jobs with these."),
    ] = None,
) -> dict[str, str] | None:
    """The entries that are asked for; none of them for jobs that have none; None for all jobs."""
    wanted = {entry[2]: value for name, value in request.query_params.items() if (entry := ENTRY.fullmatch(name))}
    if metadata is not None and wanted:
        raise invalid("metadata", "jobs without any have none of these")
    return wanted or (None if metadata is None else {})


Noted = Annotated[dict[str, str] | None, Depends(_noted)]

router = APIRouter(prefix=PREFIX, tags=["openai"], route_class=GuardedRoute)


@router.post("/fine_tuning/jobs", summary="Train a network", responses=problems(404, 409, 422, 429, 507))
def create_fine_tuning_job(
    database: StoredIn,
    settings: Configured,
    watch: Watching,
    caller: Caller,
    response: Response,
    request: FineTuningRequest,
    idempotency_key: IdempotencyKey = None,
) -> FineTuningJobDocument:
    """Queue a training on a file. Without a budget (`n_epochs`, or one in `training`) it takes a minute.

    `network` and `training` hold the settings that OpenAI's API has no words for (`extra_body` of its client).
    """
    asked, key = request.job_request(), keyed(idempotency_key, request)
    try:
        job, new = queue_job(database, settings, watch, caller, asked, key, request.amended)
    except (Problem, InvalidConfig, InvalidName, NotFound) as error:
        raise request.refused(error) from None
    if not new:
        response.headers["Idempotent-Replayed"] = "true"
    return fine_tuning_document(job)


@router.get("/fine_tuning/jobs", summary="List jobs", responses=problems(422))
def list_fine_tuning_jobs(
    database: StoredIn,
    limit: Limit = 20,
    after: After = None,
    metadata: Noted = None,
) -> ListDocument[FineTuningJobDocument]:
    """All jobs, newest first."""
    found = jobs.list_jobs(database, min(limit, MOST_ITEMS), after, metadata=metadata)
    return page_document(found, fine_tuning_document)


@router.get("/fine_tuning/jobs/{id}", summary="Look at a job", responses=problems(404, 422))
def get_fine_tuning_job(database: StoredIn, id: JobKey) -> FineTuningJobDocument:
    """Where it stands, by id or name."""
    return fine_tuning_document(jobs.get_job(database, id))


@router.post("/fine_tuning/jobs/{id}/cancel", summary="Cancel a job", responses=problems(404, 409, 422, 507))
def cancel_fine_tuning_job(database: StoredIn, id: JobKey) -> FineTuningJobDocument:
    """End a job for good; its checkpoints stay. A running one is `running` until its worker has ended it."""
    return fine_tuning_document(jobs.cancel_job(database, id))


@router.post("/fine_tuning/jobs/{id}/pause", summary="Pause a job", responses=problems(404, 409, 422, 507))
def pause_fine_tuning_job(database: StoredIn, id: JobKey) -> FineTuningJobDocument:
    """Stop a job so that it can go on later. A running one is `running` until its worker has stopped it."""
    return fine_tuning_document(jobs.pause_job(database, id))


@router.post("/fine_tuning/jobs/{id}/resume", summary="Resume a job", responses=problems(404, 409, 422, 429, 507))
def resume_fine_tuning_job(database: StoredIn, settings: Configured, id: JobKey) -> FineTuningJobDocument:
    """Queue a paused job again."""
    return fine_tuning_document(jobs.resume_job(database, id, settings.max_queued_jobs))


@router.get("/fine_tuning/jobs/{id}/events", summary="List a job's events", responses=problems(404, 422))
def list_fine_tuning_events(
    database: StoredIn, id: JobKey, limit: Limit = 20, after: After = None
) -> ListDocument[JobEventDocument]:
    """What happened to it, newest first. `GET /jobs/{id}/events` tells the same as it happens."""
    job, limit = jobs.get_job(database, id), min(limit, MOST_ITEMS)
    before = None if after is None else event_number(after)
    if after is not None and before is None:
        raise InvalidCursor(after)
    found = events_before(database, job.id, before, limit + 1)
    return list_document([event_document(event) for event in found[:limit]], has_more=len(found) > limit)


@router.get("/fine_tuning/jobs/{id}/checkpoints", summary="List a job's checkpoints", responses=problems(404, 422))
def list_fine_tuning_checkpoints(
    database: StoredIn, id: JobKey, limit: Limit = 10, after: After = None
) -> ListDocument[JobCheckpointDocument]:
    """Those that can write: the best one and the newest ones, newest first."""
    job = jobs.get_job(database, id)
    found = [] if job.model_id is None else trained_models.list_checkpoints(database, job.model_id)
    sound = [checkpoint_document(checkpoint, job.id) for checkpoint in found if not checkpoint.corrupted]
    return cut(sound, limit, after)
