"""What requests may say, as pydantic models: shapes only.

Knows no store. Ranges of a network's and a training's settings live in `models.config` alone and are checked there.
Invariant: an unknown field is refused by name, so that a typing error never trains or writes with a default.
"""

import re
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from app.presets import Preset
from app.store.names import NAME_PATTERN
from models.config import MODEL_RANGES, TRAINING_RANGES, Cell, Normalization, Precision


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


def _add_ranges(schema: dict[str, Any]) -> None:
    """Let the OpenAPI document tell the ranges of settings, which `models.config` checks."""
    for name, allowed in {**MODEL_RANGES, **TRAINING_RANGES}.items():
        if found := schema["properties"].get(name):
            found["minimum"] = allowed.low
            # FastAPI writes bounds as floating-point numbers: 2^63 is one, 2^63 - 1 is none.
            found |= {"exclusiveMaximum": 2**63} if allowed.high == 2**63 - 1 else {"maximum": allowed.high}


class Section(Request):
    """A section of settings: only types are checked here; `null` is the same as leaving out."""

    model_config = ConfigDict(json_schema_extra=_add_ranges)

    def given(self) -> dict[str, Any]:
        """The settings that the request names."""
        return self.model_dump(exclude_none=True)


class ModelSettings(Section):
    """The network; what is left out comes from the preset."""

    cell: Cell | None = Field(default=None, description="The recurrence. Default lstm; gru for `tiny`.")
    hidden_size: int | None = Field(default=None, description="Width of each layer's hidden state, 1 to 16,384.")
    num_layers: int | None = Field(default=None, description="Recurrent layers on top of one another, 1 to 16.")
    embedding_size: int | None = Field(default=None, description="Width of a character's vector, 1 to 16,384.")
    dropout: float | None = Field(
        default=None,
        description="Share of values zeroed in training, 0 to 0.95. Default 0.1; 0.4 for ten passes and more.",
    )
    normalization: Normalization | None = Field(
        default=None,
        description="Of texts and prompts: `letters` keeps a-z and single spaces. Default none.",
    )


class TrainingSettings(Section):
    """The training; what is left out has a default. At most one of `epochs`, `steps`, `minutes` is the budget."""

    epochs: float | None = Field(default=None, description="Budget in passes over the training part of the corpus.")
    steps: int | None = Field(default=None, description="Budget in optimizer updates.")
    minutes: float | None = Field(default=None, description="Budget in minutes, evaluations included. Default 1.")
    batch_size: int | None = Field(
        default=None,
        description="Lanes that read the corpus side by side, 1 to 4,096. Default 32.",
    )
    sequence_length: int | None = Field(
        default=None,
        description="Characters through which gradients flow back, 1 to 4,096. Default 32.",
    )
    learning_rate: float | None = Field(default=None, description="Peak of the schedule. Default by the width.")
    gradient_clip: float | None = Field(default=None, description="Largest norm of the gradient. Default 1.")
    weight_decay: float | None = Field(default=None, description="AdamW's. Default 0.1.")
    average_decay: float | None = Field(
        default=None,
        description="Evaluations, samples and checkpoints take an average of the weights over about 1/(1 - this) "
        "steps, 0 to 0.99999. Default 0: the weights themselves.",
    )
    state_reset: float | None = Field(
        default=None,
        description="Share of lanes whose carried state starts anew at a step, as a text begins, 0 to 1. Default 0.1.",
    )
    validation_fraction: float | None = Field(
        default=None, description="The end of the text that is kept for validation, 0 to 0.5. Default 0.1."
    )
    patience: int | None = Field(
        default=None,
        description="Evaluations without a new best validation loss before training ends early.",
    )
    seed: int | None = Field(default=None, description="Fixes initial weights and dropout. Default 0.")
    precision: Precision | None = Field(default=None, description="Of the products in training. Default auto.")
    evaluate_every: int | None = Field(
        default=None, description="Steps between evaluations. Default: planned from the budget."
    )
    softmax_samples: int | None = Field(
        default=None,
        description="Training's loss sums over the characters that a step has to predict and so many others, drawn "
        "anew each time, 0 to 1,000,000; 0: over the whole vocabulary. Default 0; 250 on a CPU for a vocabulary of "
        "more than 4,000.",
    )


def _without_quotes(name: str) -> str:
    if '"' in name or "\\" in name:
        raise ValueError("must hold no quotation mark and no backslash")
    return name


MetadataName = Annotated[
    Text,
    Field(min_length=1, max_length=64),
    AfterValidator(_without_quotes),
]
METADATA_SCHEMA = {
    "type": "object",
    "maxProperties": 16,
    "propertyNames": {"minLength": 1, "maxLength": 64, "pattern": r'^[^"\\]+$'},
    "additionalProperties": {"type": "string", "maxLength": 512},
}
Metadata = Annotated[dict[MetadataName, Annotated[Text, Field(max_length=512)]], WithJsonSchema(METADATA_SCHEMA)]


class JobRequest(Request):
    """What to train on; everything else has a default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"corpus": "shakespeare", "training": {"minutes": 0.2}},
                {"corpus": "my-notes", "from_checkpoint": "shakespeare"},
            ]
        },
    )

    corpus: Text = Field(min_length=1, max_length=100, description="Id or name of a corpus; a name means its newest.")
    name: Text | None = Field(
        default=None,
        json_schema_extra={"pattern": f"^{NAME_PATTERN}$"},
        description="Of the job and its model: 1 to 64 of letters, digits, `.`, `_`, `-`. Default: the corpus's.",
    )
    preset: Preset = Field(
        default="auto",
        description="Size of the network: tiny is one layer of 256, small of 384, medium of 512, large two of 1,024. "
        "auto is medium; small for a corpus under 100,000 characters or, on a CPU, a budget of at most 2 minutes; "
        "tiny for one of at most 15 seconds.",
    )
    from_checkpoint: Text | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Go on from a model: id or name (its best checkpoint), or `name@step`. The network is the model's: "
        "no `preset` goes with it, and of `model` only what it has, or another `dropout`.",
    )
    model: ModelSettings | None = None
    training: TrainingSettings | None = None
    metadata: Metadata | None = Field(
        default=None,
        max_length=16,
        description="Notes of your own, told with the job: up to 16 texts of 512 characters, under names of 64.",
    )
