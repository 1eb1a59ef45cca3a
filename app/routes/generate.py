"""Text from a model: `POST /generate`, and the same as `GET`.

Knows HTTP, which checkpoint is meant, and whom to ask for a stream. Invariant: whatever is wrong with a request is
answered by a problem before the first character; the connection to the store is given back before the text begins.
"""

import secrets
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from app.errors import invalid
from app.generation.streams import Generation, Stream
from app.negotiation import negotiated
from app.openapi import body, problems
from app.routes.admission import admitted
from app.routes.dependencies import Configured, Generating, StoredIn
from app.routes.generation_responses import Events, PlainText, Told, nobody_listens, while_connected, whole_text
from app.schemas import GenerateQuery, GenerateRequest
from app.settings import Settings
from app.store.database import Database

router = APIRouter(tags=["generate"])

OFFERED = (PlainText.media_type, Events.media_type, "application/json")
SEEDS = 2**53
"""A drawn seed is below this: JavaScript holds it exactly."""


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
        admit = partial(self._admit, asked, seed)
        opened = await while_connected(receive, admitted(self._generation, self._database, asked.model, admit))
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

    async def _admit(self, asked: GenerateRequest, seed: int, stream: Stream, blob_id: str) -> None:
        await self._generation.admit(stream, asked, blob_id, seed)
