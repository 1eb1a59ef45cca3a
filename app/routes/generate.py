"""Text from a model: `POST /generate`, and the same as `GET`.

Knows HTTP, which checkpoint is meant, and whom to ask for a stream. Invariant: whatever is wrong with a request is
answered by a problem before the first character; the connection to the store is given back before the text begins.
"""

import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.errors import invalid
from app.generation.streams import Generation, GenerationRefused, Stream
from app.negotiation import negotiated
from app.openapi import body, problems
from app.routes.dependencies import Configured, Generating, StoredIn
from app.routes.generation_responses import Events, PlainText, Told, nobody_listens, while_connected, whole_text
from app.schemas import GenerateQuery, GenerateRequest
from app.settings import Settings
from app.store.database import Database
from app.store.trained_models import Checkpoint, Model, find_checkpoint, quarantine

router = APIRouter(tags=["generate"])

OFFERED = (PlainText.media_type, Events.media_type, "application/json")
SEEDS = 2**53
"""A drawn seed is below this: JavaScript holds it exactly."""
PASSED_OVER = ("checkpoint_corrupted", "checkpoint_gone")
"""Why another checkpoint is tried: the best is damaged, or was replaced by a newer one since it was found."""
TRIES = 5


class GeneratedDocument(BaseModel):
    """A whole text, and what to ask for to get it again."""

    text: str
    finish_reason: str
    characters: int
    seed: int
    model: str
    checkpoint_step: int


ANSWERS = problems(
    404,
    406,
    422,
    429,
    503,
    ok={
        200: {
            "description": "The text, in the form asked for by `Accept`.",
            "content": {kind: body(kind)["content"][kind] for kind in OFFERED[:2]},
            "model": GeneratedDocument,
        }
    },
)


@router.post("/generate", summary="Write text", response_class=Response, responses=ANSWERS)
async def generate(
    request: Request, asked: GenerateRequest, database: StoredIn, settings: Configured, generation: Generating
) -> Response:
    """Let a model write. By `Accept`: `text/plain` (default, characters as they are written), `text/event-stream`
    (`data: {"text": ...}`, last `event: done`) or `application/json` (all at once). `X-Seed` tells the seed used.

    Swagger UI shows a stream only when it has ended. To see the text as it is written, use `curl -N`.
    """
    return await _Generating(request, database, settings, generation).answer(asked)


@router.get("/generate", summary="Write text (for links and `curl`)", response_class=Response, responses=ANSWERS)
async def generate_by_query(
    request: Request,
    asked: Annotated[GenerateQuery, Query()],
    database: StoredIn,
    settings: Configured,
    generation: Generating,
) -> Response:
    """The same as `POST /generate`, with the fields as query parameters; `stop` may be given several times."""
    return await _Generating(request, database, settings, generation).answer(asked)


class _Generating:
    """One request."""

    def __init__(self, request: Request, database: Database, settings: Settings, generation: Generation) -> None:
        self._request = request
        self._database = database
        self._settings = settings
        self._generation = generation

    async def answer(self, asked: GenerateRequest) -> Response:
        kind = negotiated(self._request, OFFERED)
        self._check_prompt(asked.prompt)
        seed = secrets.randbelow(SEEDS) if asked.seed is None else asked.seed
        receive = self._request.receive
        opened = await while_connected(receive, self._open(asked, seed))
        if opened is None:
            return nobody_listens()
        model, checkpoint, stream = opened
        told = Told(seed, model.id, checkpoint.step)
        if kind == "application/json":
            return await whole_text(stream, told, receive)
        return (Events if kind == Events.media_type else PlainText)(stream, told)

    def _check_prompt(self, prompt: str) -> None:
        limit = self._settings.max_prompt_characters
        if len(prompt) > limit:
            raise invalid("prompt", f"must have at most {limit} characters, not {len(prompt)}", code="prompt_too_long")

    async def _open(self, asked: GenerateRequest, seed: int) -> tuple[Model, Checkpoint, Stream]:
        """An admitted stream of the best checkpoint that can be read.

        Raises NotFound, GenerationRefused, TooManyStreams, GenerationUnavailable.
        """
        for tries_left in reversed(range(TRIES)):
            stream = self._generation.hold_place()
            try:
                model, checkpoint = await run_in_threadpool(find_checkpoint, self._database, asked.model)
                await self._generation.admit(stream, asked, checkpoint.blob_id, seed)
            except GenerationRefused as refused:
                is_damaged = refused.code == "checkpoint_corrupted"
                found_again = is_damaged and not await run_in_threadpool(quarantine, self._database, checkpoint)
                if refused.code not in PASSED_OVER or found_again or not tries_left:
                    raise
            except BaseException:
                stream.evict()
                raise
            else:
                return model, checkpoint, stream
        raise AssertionError("the last try returns or raises")
