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


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `low` to `high`."""

    low: int
    high: int

    def check(self, field: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise InvalidConfig(field, f"must be a whole number from {self.low} to {self.high}, not {value!r}")


SMALLEST = 1e-9
"""No setting is smaller, unless it is 0. None that is would do anything, and the smallest of all (denormal numbers) are
0 to a process that flushes them, as training and generation do: one would refuse what another has let pass."""


@dataclass(frozen=True, slots=True)
class Real:
    """Numbers from `low` to `high`; 0 may be among them, others below `SMALLEST` are not."""

    low: float
    high: float

    def check(self, field: str, value: object) -> None:
        number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        if number is None or not self.low <= number <= self.high:
            raise InvalidConfig(field, f"must be a number from {self.low:g} to {self.high:g}, not {value!r}")
        if 0 < number < SMALLEST:
            raise InvalidConfig(field, f"must be 0 or at least {SMALLEST:g}, not {value!r}")


MODEL_RANGES: Mapping[str, Whole | Real] = {
    "hidden_size": Whole(1, 16_384),
    "num_layers": Whole(1, 16),
    "embedding_size": Whole(1, 16_384),
    "dropout": Real(0, 0.95),
}
TRAINING_RANGES: Mapping[str, Whole | Real] = {
    "epochs": Real(SMALLEST, 1e6),
    "steps": Whole(1, 10**9),
    "minutes": Real(SMALLEST, 60 * 24 * 90),
    "batch_size": Whole(1, 4096),
    "sequence_length": Whole(1, 4096),
    "learning_rate": Real(SMALLEST, 10),
    "gradient_clip": Real(SMALLEST, 1e6),
    "weight_decay": Real(0, 10),
    "average_decay": Real(0, 0.99999),
    "state_reset": Real(0, 1),
    "validation_fraction": Real(0, 0.5),
    "patience": Whole(1, 10**6),
    "seed": Whole(0, 2**63 - 1),
    "evaluate_every": Whole(1, 10**9),
    "softmax_samples": Whole(0, 10**6),
}
OPTIONAL = {"epochs", "steps", "minutes", "patience", "evaluate_every"}
"""These may also be None."""


def _one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidConfig(field, f"must be one of {', '.join(allowed)}, not {value!r}")


class _Record:
    """What both configurations share: ranges, and conversion to dictionaries."""

    def _check_ranges(self, ranges: Mapping[str, Whole | Real]) -> None:
        for name, allowed in ranges.items():
            value = getattr(self, name)
            if value is not None or name not in OPTIONAL:
                allowed.check(name, value)

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

    cell: Cell = "lstm"
    """Which recurrence: Elman's with tanh or ReLU, a gated recurrent unit, or long short-term memory."""
    hidden_size: int = 512
    """Width of each layer's hidden state, 1 to 16,384."""
    num_layers: int = 1
    """Recurrent layers on top of one another, 1 to 16."""
    embedding_size: int = 64
    """Width of a character's vector, 1 to 16,384. Narrower than the hidden layer costs no quality and saves work."""
    dropout: float = 0.1
    """Share of values zeroed in training, 0 to 0.95: between layers, and before the output."""
    normalization: Normalization = "none"
    """What is done to texts and prompts before they meet the vocabulary."""

    def __post_init__(self) -> None:
        _one_of("cell", self.cell, CELLS)
        self._check_ranges(MODEL_RANGES)
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
    sequence_length: int = 32
    """Characters between two truncations of backpropagation through time, 1 to 4,096."""
    learning_rate: float = 4e-3
    """Peak of the schedule: linear warm-up, then a cosine to 2 % of it."""
    gradient_clip: float = 1.0
    """Largest L2 norm of the whole gradient; the tutorial's answer to exploding gradients."""
    weight_decay: float = 0.1
    """AdamW's decoupled decay, per unit of learning rate."""
    average_decay: float = 0.0
    """Evaluations, samples and checkpoints take an exponential average of the weights over the steps, 0 to 0.99999.

    The share of the average that a step leaves: 0.99 averages over about 100 steps. 0: no average, the weights."""
    state_reset: float = 0.1
    """Share of lanes, on average, whose carried state starts anew at a step, 0 to 1.

    A text is written from an empty state, and a network that never met one in training begins badly."""
    validation_fraction: float = 0.1
    """The end of the text that is kept for validation, 0 to 0.5; 0: no validation, the last checkpoint is the best.

    At most a million characters of it are read at an evaluation, in a short training fewer (200,000 for each minute, or
    half of what the steps read; at least 8,192), in 16 stretches that are spread evenly over it."""
    patience: int | None = None
    """Evaluations without a new best before training stops early; None: never."""
    seed: int = 0
    """Fixes initial weights and dropout, 0 to 2^63 - 1."""
    precision: Precision = "auto"
    """Of the products in training: auto is bfloat16 where the hardware multiplies it, else float32."""
    evaluate_every: int | None = None
    """Steps between evaluations (with sample, checkpoint and resume point); None: planned from the budget."""
    softmax_samples: int = 0
    """Training's loss sums over the characters that a step has to predict and so many others, drawn anew each time, in
    place of the whole vocabulary (worker.sampled_softmax), 0 to 1,000,000; 0: over all. Evaluation's is over all."""

    def __post_init__(self) -> None:
        budgets = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(budgets) > 1:
            raise InvalidConfig(budgets[1], f"give one budget, not {' and '.join(budgets)}")
        if not budgets:
            object.__setattr__(self, "minutes", 1.0)
        self._check_ranges(TRAINING_RANGES)
        _one_of("precision", self.precision, PRECISIONS)
        if self.patience is not None and not self.validation_fraction:
            raise InvalidConfig("patience", "watches the validation loss: give a validation_fraction above 0")

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
