"""Completions in OpenAI's dialect: texts of the same streams as `POST /generate`.

Knows HTTP, which checkpoint is meant, and whom to ask for streams. Invariants: whatever is wrong with a request is
answered before the first character; all choices have their places, or none has.
"""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.errors import Problem, invalid, problem_of
from app.generation.streams import Samples
from app.openai.completion_answers import CompletionDocument, CompletionEvents, Origin, whole_completion
from app.openai.completion_request import CompletionRequest
from app.openai.dialect import PREFIX
from app.openai.models import not_a_model
from app.openapi import body, problems
from app.routes.admission import admitted, check_number, drawn_seed
from app.routes.dependencies import Caller, Configured, Generating, StoredIn, holder_of
from app.routes.generation_responses import nobody_listens, while_connected
from app.routes.guarded import GuardedRoute
from app.store.errors import NotFound
from app.store.trained_models import Checkpoint, Model

router = APIRouter(prefix=PREFIX, tags=["openai"], route_class=GuardedRoute)

MOST_NUMBERS = 500_000
"""Log-probabilities of an answer that is no stream: each takes a hundred bytes until all of them are there."""

ANSWERS = problems(
    404,
    422,
    429,
    503,
    ok={
        200: {
            "description": "The texts; with `stream` as server-sent events, the last of which is `[DONE]`.",
            "content": body("text/event-stream")["content"],
            "model": CompletionDocument,
        }
    },
)


@router.post("/completions", summary="Write text", response_class=Response, responses=ANSWERS)
async def complete(
    request: Request,
    asked: CompletionRequest,
    database: StoredIn,
    settings: Configured,
    generation: Generating,
    caller: Caller,
) -> Response:
    """Let a model go on with one prompt or several. A token is a character, its number the character's index in the
    model's vocabulary; `usage` counts characters.

    The answer has the `seed` that was used, and as `system_fingerprint` the checkpoint that wrote.
    """
    prompts, holder = asked.prompts, holder_of(caller)
    if asked.stream_options is not None and not asked.stream:
        raise invalid("stream_options", "goes with stream alone")
    _check_lengths(asked, settings.max_prompt_characters)
    if asked.each > 1:
        check_number(len(prompts) * asked.each, settings, holder, "times the number of prompts must be")
    check_number(len(prompts), settings, holder, "must have", "prompt")
    seed = drawn_seed() if asked.seed is None else asked.seed
    wanted = asked.row_fields(seed)

    async def admit(samples: Samples, _: Model, checkpoint: Checkpoint) -> None:
        await generation.admit(samples, checkpoint.blob_id, wanted)

    opening = admitted(generation, database, asked.model, admit, len(prompts) * asked.each, holder)
    try:
        opened = await while_connected(request.receive, opening)
    except NotFound as error:
        told = not_a_model(asked.model, error)
        problem = told if isinstance(told, Problem) else problem_of(told)
        problem.errors = [{"field": "model", "message": problem.detail}]
        raise problem from None
    if opened is None:
        return nobody_listens()
    model, checkpoint, samples = opened
    origin = Origin(model.id, checkpoint.id, checkpoint.step, seed)
    if asked.stream:
        return CompletionEvents(samples, asked, origin)
    return await whole_completion(samples, asked, origin, request.receive)


def _check_lengths(asked: CompletionRequest, most: int) -> None:
    read = sum(map(len, asked.prompts))  # of all: the generation process gets them in one message
    if read > most:
        raise invalid("prompt", f"must have at most {most} characters in all, not {read}", code="prompt_too_long")
    if asked.logprobs is None or asked.stream:
        return
    characters = asked.characters * len(asked.prompts) + (read if asked.echo else 0)
    numbers = characters * asked.each * (1 + asked.logprobs)
    if numbers > MOST_NUMBERS:
        told = f"would be {numbers} numbers, and at most {MOST_NUMBERS} are told at once: set stream, or ask for less"
        raise invalid("logprobs", told)
