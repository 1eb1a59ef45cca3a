"""The service as an ASGI app: what it is made of, how it starts and how it ends.

Knows every route, holds nothing globally: what routes need is in `app.state`. Invariant: whatever the start began, the
end ends, in reverse order, also when the start fails half-way.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Scope

from app import docs_page, errors, framework_errors, web_page
from app.access import OPEN
from app.answer_headers import GuardAnswers
from app.authentication import AskForKey
from app.body_limit import EndRefusedUploads
from app.coded_bodies import RefuseCodedBodies
from app.crowd import RefuseCrowds
from app.generation.streams import Generation, TooManyStreams
from app.head_requests import AnswerHead
from app.job_news import JobNews
from app.large_bodies import BoundLargeBodies
from app.openai import completions, fine_tuning
from app.openai import files as openai_files
from app.openai import models as openai_models
from app.openai.dialect import SpeakOpenAI
from app.openapi import DESCRIPTION, TAGS, describe, operation_id, problems
from app.origin_check import RefuseOtherOrigins
from app.request_ids import NameRequests
from app.request_metrics import CountRequests, RequestMetrics
from app.routes import corpora, generate, health, job_history, jobs, models, score, service_metrics
from app.routes.dependencies import holder_of
from app.routes.guarded import GuardedRoute
from app.schemas import MAX_CHARACTER_SET, MAX_STATE_CHARACTERS
from app.settings import MIB, Settings
from app.shutdown import EndWithService
from app.slow_bodies import EndSlowBodies
from app.store.database import Database
from app.store.opening import open_database
from app.store.secret_keys import secret_key
from app.watch import Watch

FORM_OVERHEAD_BYTES = 64 * 1024
"""What a multipart form adds to its file."""
ESCAPED_BYTES = 12
"""A character outside the BMP as JSON may write it, `\\ud83d\\ude00`."""
ABANDONED_SECONDS = 3600


def create_app(
    settings: Settings, *, database: Database | None = None, generation: Generation | None = None
) -> FastAPI:
    """The service. A database or generation that is given is used, and left to whoever gave it."""
    app = FastAPI(
        title="Charsmith",
        version=version("charsmith"),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,  # a text would be sent twice, and the answer in between is no problem document
        generate_unique_id_function=operation_id,
        responses=problems(400, 403, 408, 413, 415, 500),
        form_limits={"max_files": 1, "max_fields": 8, "max_part_size": 16 * 1024},
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.database = database
    app.state.generation = generation
    app.state.request_metrics = RequestMetrics()
    app.state.job_news = JobNews()
    errors.install(app)
    framework_errors.install(app)
    app.add_middleware(AnswerHead, described=app)
    describe(app)
    _surround(app, settings)
    _add_routes(app, settings)
    docs_page.install(app)
    app.include_router(web_page.router, max_body_size=MIB)
    return app


def _surround(app: FastAPI, settings: Settings) -> None:
    """Put our middleware around the whole app.

    `add_middleware` would put it inside of what answers unforeseen errors, and that 500 would lack what we add.
    """
    build = app.build_middleware_stack

    def build_surrounded() -> ASGIApp:
        stack: ASGIApp = RefuseCrowds(build(), lambda scope: _full(app, scope))
        stack = BoundLargeBodies(
            stack, largest=max(_text_bytes(settings) + MAX_STATE_CHARACTERS, _score_bytes(settings))
        )
        stack = RefuseCodedBodies(stack)
        named = [*health.router.routes, *web_page.router.routes]
        open_routes = [route for route in named if isinstance(route, APIRoute) and route.name in OPEN]
        stack = AskForKey(stack, lambda: app.state.database, open_routes)
        if settings.cors_origins:
            stack = CORSMiddleware(
                stack,
                allow_origins=settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["*"],
            )
        stack = RefuseOtherOrigins(stack, [settings.host, *settings.allowed_hosts], settings.cors_origins)
        stack = EndSlowBodies(stack)
        stack = EndWithService(stack, lambda: bool(app.state.stopping.is_set()))
        stack = GuardAnswers(SpeakOpenAI(EndRefusedUploads(stack)))
        return NameRequests(CountRequests(stack, app.state.request_metrics))

    app.build_middleware_stack = build_surrounded  # type: ignore[method-assign]


def _full(app: FastAPI, scope: Scope) -> TooManyStreams | None:
    """Why a request that would open a stream finds no place; None if it does, or nothing is known yet."""
    generation: Generation | None = app.state.generation
    return generation.full(holder=holder_of(scope["state"]["key"])) if generation else None


def _add_routes(app: FastAPI, settings: Settings) -> None:
    """Each group with the largest body that it takes: Starlette stops reading there.

    Raises TypeError for a call that would not ask for the scope of a key.
    """
    unready = problems(503)  # whatever needs the database may find it locked
    calls = APIRouter(dependencies=[Depends(framework_errors.refuse_unknown_fields)], responses=problems(401))
    # First, since routes are tried in order, which took a fifth of what a short request costs.
    calls.include_router(generate.router, max_body_size=_text_bytes(settings) + MAX_STATE_CHARACTERS)
    calls.include_router(score.router, max_body_size=_score_bytes(settings))
    calls.include_router(
        corpora.uploads, max_body_size=settings.max_corpus_bytes + FORM_OVERHEAD_BYTES, responses=unready
    )
    calls.include_router(corpora.router, max_body_size=MIB, responses=unready)
    calls.include_router(jobs.router, max_body_size=MIB, responses=unready)
    calls.include_router(job_history.router, max_body_size=MIB, responses=unready)
    calls.include_router(
        models.uploads, max_body_size=settings.max_model_bytes + FORM_OVERHEAD_BYTES, responses=unready
    )
    calls.include_router(models.router, max_body_size=MIB, responses=unready)
    calls.include_router(service_metrics.router, max_body_size=MIB, responses=unready)
    calls.include_router(_openai_calls(settings), responses=unready)
    app.include_router(calls)
    app.include_router(health.router, max_body_size=MIB)
    for context in iter_route_contexts(calls.routes):
        if not isinstance(context.original_route, GuardedRoute):
            raise TypeError(f"{context.path} is no GuardedRoute")


def _text_bytes(settings: Settings) -> int:
    """The most that a prompt and its settings take as JSON."""
    return MIB + ESCAPED_BYTES * (settings.max_prompt_characters + 2 * MAX_CHARACTER_SET)


def _score_bytes(settings: Settings) -> int:
    """The same of a text to score."""
    return MIB + ESCAPED_BYTES * settings.max_score_characters


def _openai_calls(settings: Settings) -> APIRouter:
    """Those of OpenAI's dialect."""
    calls = APIRouter()
    calls.include_router(completions.router, max_body_size=_text_bytes(settings))
    calls.include_router(openai_files.uploads, max_body_size=settings.max_corpus_bytes + FORM_OVERHEAD_BYTES)
    for group in (openai_files, fine_tuning, openai_models):
        calls.include_router(group.router, max_body_size=MIB)
    return calls


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.stopping = asyncio.Event()
    app.state.one_header = asyncio.Lock()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(spool_in(settings.temporary_dir / "uploads"))
        if app.state.database is None:
            app.state.database = await run_in_threadpool(open_database, settings.resolved_database_url)
            stack.callback(app.state.database.close)
        app.state.state_key = await run_in_threadpool(secret_key, app.state.database, "states")
        if app.state.generation is None:
            app.state.generation = Generation(settings, settings.resolved_database_url)
            stack.push_async_callback(app.state.generation.stop)
            await app.state.generation.start()
        app.state.watch = Watch(app.state.database, settings.lease_seconds)
        app.state.watch.start()
        stack.push_async_callback(run_in_threadpool, app.state.watch.stop)
        stack.callback(app.state.job_news.close)
        # For servers that, unlike ours, say nothing before they wait for open streams.
        stack.callback(begin_shutdown, app)
        yield


def begin_shutdown(app: FastAPI) -> None:
    """Tell open streams to end, each with its last word. Call it in the event loop, any number of times."""
    app.state.stopping.set()
    app.state.job_news.wake_all()
    app.state.generation.end_streams("the service is shutting down")


@contextmanager
def spool_in(folder: Path) -> Iterator[None]:
    """Temporary files of uploads lie in `folder`, from which those of a crashed service are swept.

    Starlette's form parser offers no parameter for it, only the standard library's own global: this is the one place
    where it is set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        # The folder may be shared with another service, whose spools are being written.
        if path.is_file() and time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
