"""Text from a model: `POST /generate`, and the same as `GET`.

Knows HTTP, which checkpoint is meant, and whom to ask for a stream. Invariant: whatever is wrong with a request is
answered by a problem before the first character; the connection to the store is given back before the text begins.
"""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from app.continuation import Continuation, InvalidState
from app.errors import invalid
from app.generation.protocol import Message
from app.generation.streams import Generation, Holder, Samples
from app.negotiation import negotiated
from app.openapi import body, problems
from app.routes.admission import admitted, check_number, drawn_seed
from app.routes.dependencies import Caller, Configured, Generating, StoredIn, holder_of
from app.routes.generation_responses import Events, PlainText, Told, nobody_listens, while_connected, whole_text
from app.routes.guarded import GuardedRoute
from app.schemas import GenerateQuery, GenerateRequest
from app.settings import Settings
from app.store.database import Database
from app.store.trained_models import LATEST, Checkpoint, Model

router = APIRouter(tags=["generate"], route_class=GuardedRoute)

OFFERED = (PlainText.media_type, Events.media_type, "application/json")


class SampleDocument(BaseModel):
    """A whole text."""

    text: str
    finish_reason: str = Field(description="`length`: it has `max_characters`; `stop`: a stop string came.")
    characters: int = Field(description="Of the text.")
    held_back: str = Field(
        description="Characters after the text that may be the beginning of a stop string: that had not been decided "
        "when `max_characters` were written. Empty without stop strings."
    )
    state: str = Field(description="Where the text stands, for `continue_from`.")


class OriginDocument(BaseModel):
    """What to ask for to get the same again, beside the request's own settings."""

    seed: int
    model: str
    checkpoint_step: int


class GeneratedDocument(SampleDocument, OriginDocument):
    """A whole text, and what to ask for to get it again."""


class IndexedSampleDocument(SampleDocument):
    """One of several texts."""

    index: int


class SamplesDocument(OriginDocument):
    """Several texts, where `n` is more than 1."""

    samples: list[IndexedSampleDocument]


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
            "model": GeneratedDocument | SamplesDocument,
        }
    },
)


@router.post("/generate", summary="Write text", response_class=Response, responses=ANSWERS)
async def generate(
    request: Request,
    asked: GenerateRequest,
    database: StoredIn,
    settings: Configured,
    generation: Generating,
    caller: Caller,
) -> Response:
    """Let a model write. By `Accept`: `text/plain` (default, characters as they are written), `text/event-stream`
    (`data: {"text": ...}`, last `event: done`) or `application/json` (all at once). `X-Seed` tells the seed used.

    The last event and the JSON have a `state`: given as `continue_from` it goes on with the text, without reading
    anything again, exactly as if more had been asked for at once.

    Swagger UI shows a stream only when it has ended. To see the text as it is written, use `curl -N`.
    """
    return await _Generating(request, database, settings, generation, holder_of(caller)).answer(asked)


@router.get("/generate", summary="Write text (for links and `curl`)", response_class=Response, responses=ANSWERS)
async def generate_by_query(
    request: Request,
    asked: Annotated[GenerateQuery, Query()],
    database: StoredIn,
    settings: Configured,
    generation: Generating,
    caller: Caller,
) -> Response:
    """The same as `POST /generate`, with the fields as query parameters; `stop` may be given several times."""
    return await _Generating(request, database, settings, generation, holder_of(caller)).answer(asked)


class _Generating:
    """One request."""

    def __init__(
        self, request: Request, database: Database, settings: Settings, generation: Generation, holder: Holder | None
    ) -> None:
        self._request = request
        self._database = database
        self._settings = settings
        self._generation = generation
        self._holder = holder

    async def answer(self, asked: GenerateRequest) -> Response:
        kind = negotiated(self._request, OFFERED)
        self._check_prompt(asked.prompt)
        if asked.n > 1 and kind == PlainText.media_type:
            raise invalid("n", "plain text has room for one text: ask for application/json or text/event-stream")
        check_number(asked.n, self._settings, self._holder)
        start = self._start(asked)
        if start is not None:
            asked = asked.model_copy(
                update={name: v for name, v in start.settings.items() if name not in asked.model_fields_set}
            )
        seed = drawn_seed() if asked.seed is None else asked.seed
        keep_state = kind != PlainText.media_type  # which has nowhere to tell it
        wanted = asked.row_fields(seed, keep_state=keep_state, start=start.row if start else None)
        receive = self._request.receive
        opened = await while_connected(receive, self._open(asked, wanted, start))
        if opened is None:
            return nobody_listens()
        model, checkpoint, samples = opened
        key, settings = self._state_key, asked.settings() | {"seed": seed}
        told = Told(
            *(seed, model.id, checkpoint.step),
            sign=lambda row: Continuation(checkpoint.id, settings, row).signed(key),
        )
        if kind == "application/json":
            return await whole_text(samples, told, receive)
        return (Events if kind == Events.media_type else PlainText)(samples, told)

    @property
    def _state_key(self) -> bytes:
        return cast(bytes, self._request.app.state.state_key)

    def _check_prompt(self, prompt: str) -> None:
        limit = self._settings.max_prompt_characters
        if len(prompt) > limit:
            raise invalid("prompt", f"must have at most {limit} characters, not {len(prompt)}", code="prompt_too_long")

    def _start(self, asked: GenerateRequest) -> Continuation | None:
        if asked.continue_from is None:
            return None
        try:
            return Continuation.read(asked.continue_from, self._state_key)
        except InvalidState as error:
            raise invalid("continue_from", str(error), code="invalid_state") from None

    async def _open(
        self, asked: GenerateRequest, wanted: Message, start: Continuation | None
    ) -> tuple[Model, Checkpoint, Samples]:
        """Streams of the best checkpoint, or of the one that a state belongs to."""

        async def admit(samples: Samples, model: Model, checkpoint: Checkpoint) -> None:
            if start is not None:
                _check_names(asked.model, model, checkpoint)
            await self._generation.admit(samples, checkpoint.blob_id, wanted)

        key = asked.model if start is None else start.checkpoint_id
        return await admitted(self._generation, self._database, key, admit, asked.n, self._holder)


def _check_names(key: str, model: Model, checkpoint: Checkpoint) -> None:
    """Raises Problem unless the key names this model, and this checkpoint if any. Newer ones may have its name."""
    name, at, step = key.partition("@")
    is_step = not at or step == LATEST or (step.isascii() and step.isdigit() and int(step[:20]) == checkpoint.step)
    if key != checkpoint.id and not (name in (model.id, model.name) and is_step):
        belongs = f"belongs to step {checkpoint.step} of model {model.name!r} ({model.id}), not to {key!r}"
        raise invalid("continue_from", belongs, code="invalid_state")
