"""What a job reports: numbers, live events, the loss curve as a picture.

Knows HTTP and the store's functions, no SQL. Invariant: a live stream holds neither a thread nor a database connection
while it waits, and gives each event once, in order, however often the client comes back; nothing is told to a key that
is not valid any more.
"""

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from app.documents import MetricsDocument
from app.errors import invalid
from app.loss_curve import MOST_JOBS, Curve, ImageFormat, Theme, draw
from app.negotiation import negotiated
from app.openapi import body, problems
from app.routes.dependencies import JobKey, StoredIn
from app.routes.guarded import GuardedRoute
from app.schemas import Digits
from app.store import events, jobs
from app.store.database import Database
from app.store.errors import DatabaseBusy, DatabaseUnreachable, NotFound
from app.store.events import Event
from app.store.job_rows import Job
from app.store.job_state import FINISHED
from app.store.metrics import MetricRow, read_metrics

router = APIRouter(tags=["jobs"], route_class=GuardedRoute)

LOOK_ANYWAY_SECONDS = 5.0
"""Between two looks at a job that has no news: its API key may have come to its end."""
BATCH = 100
FORMATS = {"json": "application/json", "csv": "text/csv"}
"""What numbers can be had as."""


def known_job(database: StoredIn, id: JobKey) -> Job:
    """The job of the path; 404 while the answer has not begun."""
    return jobs.get_job(database, id)


KnownJob = Annotated[Job, Depends(known_job)]


@router.get(
    "/jobs/{id}/metrics",
    summary="Read a job's numbers",
    response_model=MetricsDocument,
    responses=problems(404, 406, 422, ok={200: body("text/csv")}),
)
def get_metrics(
    request: Request,
    database: StoredIn,
    job: KnownJob,
    format: Annotated[
        Literal["json", "csv"] | None, Query(description="For who cannot choose a header; without it, by `Accept`.")
    ] = None,
) -> Response:
    """The whole history, as JSON or CSV: by `format`, or else by whether `Accept` asks for `text/csv`."""
    kind = FORMATS[format] if format else negotiated(request, tuple(FORMATS.values()))
    rows = read_metrics(database, job.id)
    headers = {"Vary": "Accept"}
    if kind == "text/csv":
        return Response(_csv(rows), media_type="text/csv; charset=utf-8", headers=headers)
    return JSONResponse({"data": [asdict(row) for row in rows]}, headers=headers)


def _csv(rows: list[MetricRow]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(MetricRow)])
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    return text.getvalue()


@router.get(
    "/jobs/{id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=problems(404, 422),
)
async def follow_job(
    request: Request,
    database: StoredIn,
    job: KnownJob,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, lt=2**63, description="The last event you have; those after it follow."),
        Digits,
    ] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events, from the first one on: status, progress, evaluation, sample, checkpoint, setback.

    The stream ends after the last event of a finished job, and when the service stops: come back with `Last-Event-ID`.
    It also ends when its API key is not valid any more.

    Swagger UI shows a stream only when it has ended, so for a running job it waits; the other calls of the page work
    meanwhile. To see events as they come, use `curl -N` with the address of this call.
    """
    stopping: asyncio.Event = request.app.state.stopping
    seen = last_event_id or 0
    changed: asyncio.Event | None = None
    with contextlib.ExitStack() as following:
        while not stopping.is_set():
            if changed is not None:
                changed.clear()  # before it is looked: what comes later wakes us again
            try:
                if await request.state.is_refused():
                    return
                news, finished = await run_in_threadpool(_news, database, job.id, seen)
            except (DatabaseBusy, DatabaseUnreachable):  # it passes, and the follower has missed nothing
                news, finished = [], False
            for event in news:
                yield ServerSentEvent(event=event.type, id=str(event.id), data=_data(event))
                seen = event.id
            if len(news) == BATCH:
                continue
            if finished:
                return
            if changed is None:  # not before: of a job that has ended nobody needs to listen for news
                changed = following.enter_context(request.app.state.job_news.of(database, job.id))
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), LOOK_ANYWAY_SECONDS)


def _news(database: Database, job_id: str, after: int) -> tuple[list[Event], bool]:
    """The next events, and whether the job has an end. Its end is read first: then no event of it can be missing."""
    try:
        finished = jobs.get_job(database, job_id).status in FINISHED
    except NotFound:  # deleted meanwhile
        return [], True
    return events.events_after(database, job_id, after, BATCH), finished


def _data(event: Event) -> dict[str, Any]:
    return event.data | {"created_at": event.created_at}


def _compared(
    database: StoredIn,
    job: KnownJob,
    compare: Annotated[
        list[str] | None,
        Query(
            description=f"Further jobs to lay over this one, by id or name, at most {MOST_JOBS - 1}: each as a "
            "parameter of its own. One that is named again is drawn once."
        ),
    ] = None,
) -> list[Job]:
    """The jobs of a picture, the path's own first. Raises NotFound for the first that is unknown."""
    found = {job.id: job}
    for key in dict.fromkeys(compare or ()):
        other = jobs.get_job(database, key)
        found[other.id] = other
        # At once: a job has two keys at most, so no request makes us look for many.
        if len(found) > MOST_JOBS:
            raise invalid("compare", f"must name at most {MOST_JOBS - 1} further jobs")
    return list(found.values())


Compared = Annotated[list[Job], Depends(_compared)]


@router.get(
    "/jobs/{id}/loss.png",
    summary="See the loss curve",
    response_class=Response,
    responses=problems(404, 422, ok={200: body("image/png", binary=True)}),
)
def get_loss_png(
    database: StoredIn,
    compared: Compared,
    theme: Annotated[Theme, Query(description="What the picture is looked at on.")] = Theme.LIGHT,
) -> Response:
    """Training and validation loss over steps, as a picture; of a running job, as far as it is.

    `compare` lays further jobs over it.
    """
    return _picture(database, compared, theme, "png", "image/png")


@router.get(
    "/jobs/{id}/loss.svg",
    summary="See the loss curve, scalable",
    response_class=Response,
    responses=problems(404, 422, ok={200: body("image/svg+xml")}),
)
def get_loss_svg(
    database: StoredIn,
    compared: Compared,
    theme: Annotated[
        Theme | None,
        Query(description="What the drawing is looked at on. Without it the drawing is what its reader prefers."),
    ] = None,
) -> Response:
    """Training and validation loss over steps, as a drawing. Swagger UI shows its source; a browser draws it.

    `compare` lays further jobs over it.
    """
    return _picture(database, compared, theme, "svg", "image/svg+xml")


def _picture(
    database: Database, compared: list[Job], theme: Theme | None, image_format: ImageFormat, media_type: str
) -> Response:
    picture = draw([_curve(database, job) for job in compared], theme=theme, image_format=image_format)
    headers = {
        # The next look at a running job must see the new curve.
        "Cache-Control": "no-cache",
        "Content-Disposition": f'inline; filename="{compared[0].name}-loss.{image_format}"',
    }
    return Response(picture, media_type=media_type, headers=headers)


def _curve(database: Database, job: Job) -> Curve:
    best = None
    if job.best_step is not None and job.best_val_loss is not None:
        best = (job.best_step, job.best_val_loss)
    return Curve(job.id, job.name, read_metrics(database, job.id), best)
