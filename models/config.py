"""What a network is and how it is trained: two frozen, validated records.

Knows no torch, no database and no HTTP, so that the service can validate a request and estimate its cost without
loading any of them. Invariant: a `ModelConfig` or `TrainingConfig` that exists is valid; both survive `as_dict` and
back.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

Cell = Literal["rnn_tanh", "rnn_relu", "gru", "lstm"]
Normalization = Literal["none", "nfc", "letters"]
Precision = Literal["auto", "float32", "bfloat16"]

CELLS: tuple[str, ...] = get_args(Cell)
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)
PRECISIONS: tuple[str, ...] = get_args(Precision)

GATES: Mapping[str, int] = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
"""How many gate blocks of `hidden_size` rows each cell's weight matrices stack."""


class InvalidConfig(ValueError):
    """A setting is out of range. `field` names it; the message says what was given and what is allowed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def _whole(field: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidConfig(field, f"must be a whole number from {low} to {high}, not {value!r}")


def _real(field: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    ok = not isinstance(value, bool) and isinstance(value, (int, float)) and low <= value <= high
    if not ok or (open_low and value == low):
        above = "above" if open_low else "from"
        raise InvalidConfig(field, f"must be a number {above} {low:g} to {high:g}, not {value!r}")


def _one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidConfig(field, f"must be one of {', '.join(allowed)}, not {value!r}")


class _Record:
    """Dictionary conversion that both configurations share."""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values, in the order of declaration."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record that `as_dict` described. Raises InvalidConfig for an unknown or invalid field."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        for name in values:
            if name not in known:
                raise InvalidConfig(str(name), f"unknown; known are {', '.join(sorted(known))}")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class ModelConfig(_Record):
    """The shape of a character network; with a vocabulary it fixes every tensor (see `parameter_shapes`)."""

    cell: Cell = "gru"
    """Which recurrence: Elman's with tanh or ReLU, a gated recurrent unit, or long short-term memory."""
    hidden_size: int = 512
    """Width of each layer's hidden state, 1 to 16,384."""
    num_layers: int = 1
    """Recurrent layers on top of one another, 1 to 16."""
    embedding_size: int = 64
    """Width of a character's vector, 1 to 16,384. Narrower than the hidden layer costs no quality and saves work."""
    dropout: float = 0.1
    """Share of values zeroed in training, 0 to 0.95: after the embedding of the layer above, and before the output."""
    normalization: Normalization = "none"
    """What is done to texts and prompts before they meet the vocabulary."""

    def __post_init__(self) -> None:
        _one_of("cell", self.cell, CELLS)
        _whole("hidden_size", self.hidden_size, 1, 16_384)
        _whole("num_layers", self.num_layers, 1, 16)
        _whole("embedding_size", self.embedding_size, 1, 16_384)
        _real("dropout", self.dropout, 0, 0.95)
        _one_of("normalization", self.normalization, NORMALIZATIONS)

    def parameter_shapes(self, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the network, as a checkpoint file holds them (float32)."""
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary_size, self.embedding_size)}
        rows = GATES[self.cell] * self.hidden_size
        for layer in range(self.num_layers):
            width = self.embedding_size if layer == 0 else self.hidden_size
            shapes[f"layers.{layer}.weight_ih_l0"] = (rows, width)
            shapes[f"layers.{layer}.weight_hh_l0"] = (rows, self.hidden_size)
            shapes[f"layers.{layer}.bias_ih_l0"] = (rows,)
            shapes[f"layers.{layer}.bias_hh_l0"] = (rows,)
        shapes["output.weight"] = (vocabulary_size, self.hidden_size)
        shapes["output.bias"] = (vocabulary_size,)
        return shapes

    def parameter_count(self, vocabulary_size: int) -> int:
        """Numbers to learn."""
        total = 0
        for shape in self.parameter_shapes(vocabulary_size).values():
            size = 1
            for width in shape:
                size *= width
            total += size
        return total


@dataclass(frozen=True, slots=True)
class TrainingConfig(_Record):
    """How a network is trained. At most one of `epochs`, `steps`, `minutes` is the budget; `minutes=1` if none is."""

    epochs: float | None = None
    """Budget in passes over the training part of the corpus."""
    steps: int | None = None
    """Budget in optimizer updates."""
    minutes: float | None = None
    """Budget in minutes of training, evaluations included."""
    batch_size: int = 32
    """Lanes: parallel readers of the corpus, 1 to 4,096."""
    sequence_length: int = 64
    """Characters between two truncations of backpropagation through time, 1 to 4,096."""
    learning_rate: float = 4e-3
    """Peak of the schedule: linear warm-up, then a cosine to 2 % of it."""
    gradient_clip: float = 1.0
    """Largest L2 norm of the whole gradient; the tutorial's answer to exploding gradients."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay, per unit of learning rate."""
    validation_fraction: float = 0.1
    """The end of the text that is kept for validation, 0 to 0.5; 0: no validation, the last checkpoint is the best."""
    patience: int | None = None
    """Evaluations without a new best before training stops early; None: never."""
    seed: int = 0
    """Fixes initial weights and dropout, 0 to 2^63 - 1."""
    precision: Precision = "auto"
    """Of the products in training: auto is bfloat16 where the hardware multiplies it, else float32."""
    evaluate_every: int | None = None
    """Steps between evaluations (with sample, checkpoint and resume point); None: planned from the budget."""

    def __post_init__(self) -> None:
        budgets = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(budgets) > 1:
            raise InvalidConfig(budgets[1], f"give one budget, not {' and '.join(budgets)}")
        if not budgets:
            object.__setattr__(self, "minutes", 1.0)
        if self.epochs is not None:
            _real("epochs", self.epochs, 0, 1e6, open_low=True)
        if self.steps is not None:
            _whole("steps", self.steps, 1, 10**9)
        if self.minutes is not None:
            _real("minutes", self.minutes, 0, 60 * 24 * 90, open_low=True)
        _whole("batch_size", self.batch_size, 1, 4096)
        _whole("sequence_length", self.sequence_length, 1, 4096)
        _real("learning_rate", self.learning_rate, 0, 10, open_low=True)
        _real("gradient_clip", self.gradient_clip, 0, 1e6, open_low=True)
        _real("weight_decay", self.weight_decay, 0, 10)
        _real("validation_fraction", self.validation_fraction, 0, 0.5)
        if self.patience is not None:
            _whole("patience", self.patience, 1, 10**6)
        _whole("seed", self.seed, 0, 2**63 - 1)
        _one_of("precision", self.precision, PRECISIONS)
        if self.evaluate_every is not None:
            _whole("evaluate_every", self.evaluate_every, 1, 10**9)

    def validation_characters(self, characters: int) -> int:
        """How many at the end of a text of `characters` are kept for validation: at least one, where any are asked."""
        return max(1, int(characters * self.validation_fraction)) if self.validation_fraction else 0

    @property
    def minimum_characters(self) -> int:
        """The shortest text whose training part is a whole sequence and the character after it."""
        needed = characters = self.sequence_length + 1
        while characters - self.validation_characters(characters) < needed:
            characters += 1
        return characters
