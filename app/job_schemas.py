"""What a request for a training may say.

Only the shape is checked here: ranges are `models.config`'s, what a network and a text allow is `app.orders`'.
Invariant: as in app.schemas, an unknown field is refused by name.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

from app.presets import Preset
from app.schemas import Request, Text
from app.store.names import NAME_PATTERN
from models.config import MODEL_RANGES, TRAINING_RANGES, Cell, Normalization, Precision


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


def _without_nul(text: str) -> str:
    """PostgreSQL stores it in JSON, and fails whoever looks for anything in such a document."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _without_quotes(name: str) -> str:
    if '"' in name or "\\" in name:
        raise ValueError("must hold no quotation mark and no backslash")
    return name


MetadataName = Annotated[
    Text,
    Field(min_length=1, max_length=64),
    AfterValidator(_without_quotes),
    AfterValidator(_without_nul),
]
METADATA_SCHEMA = {
    "type": "object",
    "maxProperties": 16,
    "propertyNames": {"minLength": 1, "maxLength": 64, "pattern": r'^[^"\\\u0000]+$'},
    "additionalProperties": {"type": "string", "maxLength": 512, "pattern": r"^[^\u0000]*$"},
}
MetadataValue = Annotated[Text, Field(max_length=512), AfterValidator(_without_nul)]
Metadata = Annotated[dict[MetadataName, MetadataValue], WithJsonSchema(METADATA_SCHEMA)]


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
