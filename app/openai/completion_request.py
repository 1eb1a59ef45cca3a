"""Completions as OpenAI's dialect asks for them, and the same as the generation process is told.

Knows both kinds of requests, no store and no vocabulary. Invariant: settings that `POST /generate` has too have its
names and its ranges.
"""

from copy import copy
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from app.openai.not_done import NotDone
from app.schemas import GenerateRequest, Request, Text

DEFAULT_TOKENS = 16
"""OpenAI's own."""
MOST_ALTERNATIVES = 20
MOST_PROMPTS = 1000
"""Each takes a place among the streams; to look at a million lists would keep everybody waiting for a second."""
SHARED = (
    *("model", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "allowed_characters", "forbidden_characters", "unknown"),
)
"""Fields that a GenerateRequest has as well, and means the same by."""


def same(name: str, description: str | None = None) -> Any:
    """A field as a GenerateRequest has it."""
    field = copy(GenerateRequest.model_fields[name])
    # Those are of the type, which is written here anew: they would be asked about null.
    field.metadata = [each for each in field.metadata if not isinstance(each, AfterValidator)]
    if description is not None:
        field.description = description
    return field


def _in_one_word(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Of four forms the errors of each would be told, and of too many prompts each item be looked at four times."""
    told = "must be a text, a list of texts, a list of characters' indices in the vocabulary, or up to 1,000 such"
    if isinstance(value, list) and len(value) > MOST_PROMPTS and not isinstance(value[0], int):
        raise ValueError(told)
    try:
        return check(value)
    except ValidationError:
        raise ValueError(told) from None


def _listed(value: object) -> object:
    if value is not None and not isinstance(value, str | list):
        raise ValueError("must be a text, or a list of texts")
    return [value] if isinstance(value, str) else value


def _refuse_choosing(value: object) -> object:
    if isinstance(value, int) and value > 1:
        raise ValueError("is not done here: ask for n completions and choose, with logprobs if you like")
    return value


# The first wrong item is enough: a million of them would take a kilobyte each.
Token = Annotated[int, Field(ge=0, lt=2**31)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
Tokens = Annotated[list[Token], Field(min_length=1, fail_fast=True)]
ListOfTokens = Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
Prompt = Annotated[Text | Texts | Tokens | ListOfTokens | None, WrapValidator(_in_one_word)]
Stop = Annotated[Text, Field(min_length=1, max_length=256)]
SeveralStops = Annotated[list[Stop], Field(max_length=16)]
Stops = Annotated[SeveralStops | None, BeforeValidator(_listed, json_schema_input_type=Stop | SeveralStops | None)]


class StreamOptions(Request):
    """What else a stream says."""

    include_usage: bool | None = Field(
        default=None, description="A last chunk without choices says how much was written."
    )
    include_obfuscation: bool | None = Field(default=None, description="Taken, and without effect.")


class CompletionRequest(Request):
    """What to go on from, with which model, and how freely to draw. null is the same as leaving out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "shakespeare", "prompt": "The ", "max_tokens": 200, "temperature": 0.8, "unknown": "skip"},
            ]
        },
    )

    model: Text = same("model")
    prompt: Prompt = Field(
        default=None,
        description="A text, a list of texts, a list of characters' indices in the model's vocabulary, or a list of "
        "such lists. A prompt in a list has `n` choices of its own, at the indices from its place times `n` on.",
    )
    max_tokens: int | None = Field(
        default=DEFAULT_TOKENS, ge=0, le=1_000_000, description="Characters to write at most; 0 with `echo`, say."
    )
    temperature: float | None = same("temperature")
    top_p: float | None = same("top_p")
    n: int | None = same("n", "Texts to write for each prompt, each with noise of its own.")
    stop: Stops = Field(default=None, description="Texts that end the writing; they are not written themselves.")
    seed: int | None = same("seed", "Same checkpoint, prompts, settings and seed: same texts. Unset: drawn, and told.")
    presence_penalty: float | None = same("presence_penalty")
    frequency_penalty: float | None = same("frequency_penalty")
    echo: bool | None = Field(default=None, description="The texts begin with the prompt, as the network reads it.")
    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MOST_ALTERNATIVES,
        description="Tell the log-probability of each character, and so many of the likeliest in its place: in nats, "
        "of the network's own distribution (at temperature 1, before penalties and filters), -9999 at least.",
    )
    stream: bool | None = Field(default=None, description="Send the texts as they are written, as server-sent events.")
    stream_options: StreamOptions | None = None
    user: Text | None = Field(default=None, description="Taken, and without effect.")
    best_of: Annotated[int | None, Field(ge=1, le=1), BeforeValidator(_refuse_choosing)] = None
    suffix: Annotated[None, NotDone("the networks read forwards alone")] = None
    logit_bias: Annotated[
        None, NotDone("allowed_characters and forbidden_characters say what may be written", "object")
    ] = None
    top_k: int | None = same("top_k")
    min_p: float | None = same("min_p")
    repetition_penalty: float | None = same("repetition_penalty")
    allowed_characters: Text | None = same("allowed_characters")
    forbidden_characters: Text | None = same("forbidden_characters")
    unknown: Literal["refuse", "skip"] | None = same(
        "unknown",
        "What to do about characters of a prompt that the model does not know: answer 400, naming the first one, or "
        "leave them all out.",
    )

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each a text or a list of indices; one at least."""
        given: Any = self.prompt
        if given is None or isinstance(given, str):
            return [given or ""]
        return [given] if isinstance(given[0], int) else list(given)

    @property
    def each(self) -> int:
        """How many texts are written for each prompt."""
        return self.n or 1

    @property
    def characters(self) -> int:
        """How many are written of each, at most."""
        return DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    def row_fields(self, seed: int) -> dict[str, Any]:
        """What the generation process is told of the request (app.generation.protocol)."""
        given = {name: value for name in SHARED if (value := getattr(self, name)) is not None}
        fields = GenerateRequest(**given, stop=self.stop or []).row_fields(seed)
        own = {"prompts": self.prompts, "max_characters": self.characters}
        return fields | own | {"echo": bool(self.echo), "alternatives": self.logprobs}
