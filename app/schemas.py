"""What requests may say, as pydantic models: their common ground, and what asks for text and scores.

Knows no store. Requests for a training are app.job_schemas'. Invariant: an unknown field is refused by name, so that a
typing error never trains or writes with a default.
"""

import re
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator


def _no_surrogates(text: str) -> str:
    """JSON can spell half a surrogate pair; it is no character, and nothing downstream could encode it."""
    try:
        text.encode()  # ten million characters in 40 ms at most; to look at each in Python took ten times as long
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_no_surrogates)]
"""A string that can be stored and sent: no lone surrogates."""


def _only_digits(value: object) -> object:
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("must be a whole number, in digits")
    return value


_DIGITS = re.compile("-?[0-9]+")
Digits = BeforeValidator(_only_digits)
"""For whole numbers of queries and headers: pydantic would take `1_0`, `5.0` and `+5` for such."""


SHOWN_UNKNOWN = 100
"""More than an answer names."""
MAX_CHARACTER_SET = 100_000
MAX_STATE_CHARACTERS = 8 * 1024 * 1024
"""In base64: the hidden state of the largest network that may be trained, 16 layers of 16,384, takes 2 MiB, two sets of
characters 0.8 MB, penalties 8 bytes for each character that occurred."""
KEPT_SETTINGS = (
    *("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("allowed_characters", "forbidden_characters", "stop"),
)


class Request(BaseModel):
    """A request body or a part of one: unknown fields, values of another type and NaN are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_most_unknown(cls, sent: object) -> object:
        """Of millions of unknown fields some are enough to refuse: each error takes a kilobyte."""
        if not isinstance(sent, dict) or len(sent) <= len(cls.model_fields):
            return sent
        unknown = (name for name in sent if name not in cls.model_fields)
        dropped = set(islice(unknown, SHOWN_UNKNOWN, None))
        return {name: value for name, value in sent.items() if name not in dropped}


class GenerateRequest(Request):
    """What to write, with which model, and how freely to draw."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "shakespeare",
                    "prompt": "The ",
                    "unknown": "skip",  # so that it runs whatever the text's alphabet
                    "max_characters": 500,
                    "temperature": 0.8,
                }
            ]
        },
    )

    model: Text = Field(
        min_length=1,
        max_length=200,
        description="Id or name of a model, whose best checkpoint writes; `name@step` for another, `name@latest` for "
        "the newest. A name means its newest model.",
        examples=["shakespeare"],
    )
    prompt: Text = Field(default="", description="Text to go on from.")
    unknown: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="What to do about characters of the prompt that the model does not know: answer 422, naming the "
        "first one, or leave them all out.",
    )
    max_characters: int = Field(default=500, ge=1, le=1_000_000, description="Characters to write at most.")
    temperature: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="Below 1 more careful, above 1 more daring; 0 always takes the likeliest character.",
    )
    top_k: int = Field(
        default=0, ge=0, le=1_000_000, description="Draw from the k likeliest characters only; 0: from all."
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Draw from the likeliest characters that together hold this share."
    )
    min_p: float = Field(
        default=0.0, ge=0, le=1, description="Leave out characters below this share of the likeliest one's."
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="Same model, prompt and seed: same text. Unset: drawn, and told."
    )
    repetition_penalty: float = Field(
        default=1.0,
        ge=0.1,
        le=10,
        description="Above 1 makes characters that the prompt or the text has less likely, below 1 more likely.",
    )
    presence_penalty: float = Field(
        default=0.0,
        ge=-10,
        le=10,
        description="Makes characters that were written already less likely, below 0 more likely: in nats, taken from "
        "their logits.",
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-10, le=10, description="The same, once for each time that they were written."
    )
    allowed_characters: Text | None = Field(
        default=None,
        max_length=MAX_CHARACTER_SET,
        description="Write no characters but these. Unset: all that the model knows.",
    )
    forbidden_characters: Text = Field(
        default="", max_length=MAX_CHARACTER_SET, description="Never write these characters."
    )
    stop: list[Annotated[Text, Field(min_length=1, max_length=256)]] = Field(
        default_factory=list, max_length=16, description="Texts that end the writing; they are not written themselves."
    )
    n: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Texts to write, each with noise of its own; the prompt is read once. More than 1 not as plain "
        "text.",
    )
    continue_from: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_STATE_CHARACTERS,
        description="The `state` at the end of another text: go on from there, with the same checkpoint, and with the "
        "same settings where this request names none (but for `max_characters` and `n`). No prompt is read again; one "
        "that is given is read after that text.",
    )

    def row_fields(self, seed: int, *, keep_state: bool = False, start: str | None = None) -> dict[str, Any]:
        """What the generation process is told of the request (app.generation.protocol)."""
        own = self.model_dump(exclude={"model", "n", "continue_from"})
        return own | {"seed": seed, "keep_state": keep_state, "start": start}

    def settings(self) -> dict[str, Any]:
        """What a text that goes on from this one takes over, but the seed, which may have been drawn."""
        kept = self.model_dump(include=set(KEPT_SETTINGS))
        # A state is to be small: of a set of characters each once.
        sets = {name: kept[name] for name in ("allowed_characters", "forbidden_characters") if kept[name]}
        return kept | {name: "".join(dict.fromkeys(characters)) for name, characters in sets.items()}


class GenerateQuery(GenerateRequest):
    """The same as a query, where every value is written as a string."""

    model_config = ConfigDict(strict=False)

    _check_digits = field_validator("max_characters", "top_k", "seed", "n", mode="before")(_only_digits)


class ScoreRequest(Request):
    """Which text to score, with which model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "shakespeare",
                    "text": "To be, or not to be, that is the question:\n",
                    "unknown": "skip",  # so that it runs whatever the text's alphabet
                    "top": 3,
                }
            ]
        },
    )

    model: Text = Field(
        min_length=1,
        max_length=200,
        description="Id or name of a model, or `name@step` for one checkpoint; a name means its newest model.",
        examples=["shakespeare"],
    )
    text: Text = Field(min_length=1, description="Text to score. Goes through the model's normalization.")
    unknown: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="What to do about characters of the text that the model does not know: answer 422, naming the "
        "first one, or leave them all out.",
    )
    top: int = Field(
        default=0, ge=0, le=20, description="So many of the likeliest characters are told at each position as well."
    )
