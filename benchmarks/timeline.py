"""When a training was how good: checkpoints with the time at which they were there and their losses, by protocol.

Knows no torch. Losses are in nats per character and always named by protocol; seconds count from the first step,
evaluations included, starting the process not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["cold 64", "cold 256", "carried"]
"""`cold n`: windows of n characters, each begun with no past. `carried`: the state is carried on from the text before.
All over the whole validation part, the last tenth of the text."""


@dataclass(frozen=True)
class Point:
    """One checkpoint."""

    step: int
    seconds: float
    best: bool
    """Whether the training itself called it the best so far."""
    losses: dict[Protocol, float]
    """Those that were asked for; empty for a checkpoint that none was."""


def seconds_to(points: Iterable[Point], protocol: Protocol, loss: float) -> float | None:
    """When the loss was first at or below a bar; None: never."""
    return min((p.seconds for p in points if p.losses.get(protocol, float("inf")) <= loss), default=None)


def best_within(points: Sequence[Point], seconds: float) -> Point | None:
    """The checkpoint that a user would have been given by then: the newest that was the best so far."""
    return max((p for p in points if p.best and p.seconds <= seconds), key=lambda p: p.seconds, default=None)
