"""How likely a model finds a text: `POST /score`.

Knows HTTP, which checkpoint is meant, and whom to ask for a stream: the stream writes the answer. Invariants: whatever
is wrong with a request is answered by a problem; the answer is one JSON document, and one that broke off is none.
"""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from app.errors import invalid, refusal
from app.generation.streams import GenerationRefused, Samples, StreamFailed
from app.openapi import problems
from app.routes.admission import admitted
from app.routes.dependencies import Caller, Configured, Generating, StoredIn, holder_of
from app.routes.generation_responses import (
    SILENT_SECONDS,
    STREAMED,
    RowResponse,
    broken_off,
    nobody_listens,
    or_silence,
    while_connected,
)
from app.routes.guarded import GuardedRoute
from app.schemas import ScoreRequest
from app.store.trained_models import Checkpoint, Model

router = APIRouter(tags=["generate"], route_class=GuardedRoute)

OF_THE_TEXT = ("unknown_character", "empty_text")
"""Why a text is refused, rather than its model."""


class Alternative(BaseModel):
    """A character that might have stood there."""

    character: str
    log_probability: float


class ScoredDocument(BaseModel):
    """How likely a model finds a text. Logarithms are natural ones, of five decimals, and never below -9999."""

    model: str
    checkpoint_step: int
    top: list[list[Alternative]] = Field(
        default=[], description="Only if asked for: the likeliest characters at each position, likeliest first."
    )
    text: list[str] = Field(
        default=[],
        description="Only with `top`: the characters that were scored, normalized, without what was skipped.",
    )
    log_probabilities: list[float] = Field(
        description="Of each character of the text, normalized and without what was skipped, given those before it."
    )
    characters: int = Field(description="How many were scored.")
    loss: float = Field(description="Mean of the log-probabilities, negated: nats per character.")
    bits_per_character: float
    perplexity: float = Field(description="Exponential of the loss.")
    characters_per_second: float = Field(description="While they were worked out; waiting for others does not count.")


ANSWERS = problems(
    404, 422, 429, 503, ok={200: {"description": "The scores, as they are worked out.", "model": ScoredDocument}}
)


@router.post("/score", summary="Score a text", response_class=Response, responses=ANSWERS)
async def score(
    request: Request,
    asked: ScoreRequest,
    database: StoredIn,
    settings: Configured,
    generation: Generating,
    caller: Caller,
) -> Response:
    """Tell the log-probability of each character of a text, bits per character and perplexity; with `top`, the
    likeliest characters at each position as well. A model whose text this is finds it likely.

    The first character is predicted from what `POST /generate` reads in place of an empty prompt. Texts longer than
    4,096 characters are read in stretches of so many, side by side, each after the 256 characters before it, which
    changes the mean by less than a thousandth of a nat. The answer is one JSON document that is sent as it is worked
    out, the sums last.
    """
    limit = settings.max_score_characters
    if len(asked.text) > limit:
        message = f"must have at most {limit} characters, not {len(asked.text)}"
        raise invalid("text", message, code="text_too_long")

    async def admit(samples: Samples, _: Model, checkpoint: Checkpoint) -> None:
        await generation.score(samples, checkpoint.blob_id, asked.text, {"unknown": asked.unknown, "top": asked.top})

    try:
        opening = admitted(generation, database, asked.model, admit, holder=holder_of(caller))
        opened = await while_connected(request.receive, opening)
    except GenerationRefused as refused:
        raise refusal(refused, "text" if refused.code in OF_THE_TEXT else None) from None
    if opened is None:
        return nobody_listens()
    model, checkpoint, samples = opened
    first = None
    try:
        first = await while_connected(request.receive, _first_piece(samples))
    except StreamFailed as failed:
        raise broken_off(failed) from None
    finally:
        if first is None:
            samples.evict()
    if first is None:
        return nobody_listens()
    named = json.dumps({"model": model.id, "checkpoint_step": checkpoint.step})
    return ScoreResponse(samples, f"{named.removesuffix('}')}, {first}")


async def _first_piece(samples: Samples) -> str:
    """Waited for, so that what goes wrong at once is told by a status; nothing if that takes long.

    Raises StreamFailed.
    """
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            return (await anext(samples))[1]
    except TimeoutError:
        return ""


class ScoreResponse(RowResponse):
    """The document as it is worked out. White space fills a long silence, for which a proxy would give up."""

    media_type = "application/json"

    def __init__(self, samples: Samples, beginning: str) -> None:
        self._beginning = beginning
        super().__init__(samples, STREAMED)

    async def _body(self) -> AsyncIterator[bytes]:
        yield self._beginning.encode()
        async for _, piece in or_silence(self._samples):
            yield b" " if piece is None else piece.encode()
