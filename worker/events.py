"""What training says: frozen facts, in the order in which they became true.

Knows nothing of who listens. Steps are counted in optimizer updates, losses in nats per character, times in seconds.
An event at step n describes the network after n updates.
"""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["budget", "patience", "paused"]


@dataclass(frozen=True, slots=True)
class Started:
    """Training begins, or goes on from `step`. What was planned is known."""

    step: int
    steps: int
    """Planned steps; with a budget in minutes a first guess that later Progress events correct."""
    parameters: int
    vocabulary_size: int
    train_characters: int
    validation_characters: int
    device: str
    precision: Literal["float32", "bfloat16"]
    setbacks: int = 0
    """As many as there were before, up to the resume point from which it goes on."""
    threads: int | None = None
    """Of torch; a resumed training keeps them."""
    machines: tuple[str, ...] = ()
    """The kinds of machine that the steps were computed on, in this order. With more than one the result is no longer
    that of an undisturbed training to the bit."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """Still moving: from loading, every step and within evaluation, so that a hung step is told from a slow one."""

    phase: Literal["loading", "training", "evaluating"]
    step: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of training, at steps fixed by the configuration."""

    step: int
    steps: int
    epoch: float
    """Passes over the training part, fractional."""
    fraction: float
    """Share of the budget used, 0 to 1."""
    train_loss: float
    """Mean over the steps since the last Progress."""
    learning_rate: float
    gradient_norm: float
    """Before clipping, of the last step."""
    characters_per_second: float
    """Training characters read per second since the last Progress, evaluations not counted."""
    seconds: float
    """Training time so far, earlier attempts up to their resume point included."""
    eta_seconds: float
    memory_bytes: int
    """Peak of this attempt's process so far: resident memory, on a CUDA device what its tensors took there."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The loss on the validation part (whole, or stretches of it; carried state)."""

    step: int
    val_loss: float
    best: bool
    """Lower than every earlier evaluation."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A few lines that the network writes now; costs training no randomness."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class Saved:
    """Everything to keep. `checkpoint` is a file for generation (None: a resume point alone, as before a pause)."""

    step: int
    train_loss: float | None
    val_loss: float | None
    best: bool
    checkpoint: bytes | None
    resume_point: bytes


@dataclass(frozen=True, slots=True)
class Setback:
    """A number at `step` was not finite: training goes on from `to_step`, its last resume point, more slowly.

    What was told of later steps is void. A Saved without checkpoint follows, so that no later attempt tries as before.
    """

    step: int
    to_step: int
    setbacks: int
    """In this training so far, this one included."""
    learning_rate: float
    """Peak of the schedule from now on: half of what it was."""
    what: str
    """Which number: the training loss, the gradient, the largest weight, the validation loss, the network's answer."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. After `paused`, the Saved before it is where to go on; without one (a pause while the corpus was
    being loaded, step 0) it is where this attempt began."""

    step: int
    reason: FinishReason
    best_step: int | None
    best_val_loss: float | None


Event = Started | Ticked | Progress | Evaluated | Sampled | Saved | Setback | Finished
