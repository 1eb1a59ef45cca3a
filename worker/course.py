"""Where a training stands, besides its tensors: what it has counted, lost and found best.

Knows no network, no plan and no clock. Invariant: it holds JSON values alone, and all of it is in the resume point.
"""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Course:
    """Counted from the first step of the job on. Losses are in nats per character."""

    step: int = 0
    evaluated_step: int = 0
    best_step: int | None = None
    best_val_loss: float | None = None
    evaluations_since_best: int = 0
    samples: int = 0
    setbacks: int = 0
    train_loss: float | None = None
    """As last reported."""
    losses: list[float] = field(default_factory=list)
    """Since the last report."""

    def count_step(self, loss: float) -> None:
        """One more step is done, and this was its loss."""
        self.step += 1
        self.losses.append(loss)

    def report_loss(self) -> float:
        """The mean since the last report, which this is."""
        self.train_loss = _mean(self.losses)
        self.losses = []
        return self.train_loss

    def recent_loss(self) -> float | None:
        """The mean since the last report, or what that told."""
        return _mean(self.losses) if self.losses else self.train_loss

    def judge(self, val_loss: float | None) -> bool:
        """Note the evaluation; whether it is the best so far. Without validation every one is."""
        self.evaluated_step = self.step
        best = val_loss is None or self.best_val_loss is None or val_loss < self.best_val_loss
        self.evaluations_since_best = 0 if best else self.evaluations_since_best + 1
        if best:
            self.best_step, self.best_val_loss = self.step, val_loss
        return best

    def as_dict(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Course":
        """What `as_dict` gave. Raises TypeError for an unknown name."""
        return cls(**values)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
