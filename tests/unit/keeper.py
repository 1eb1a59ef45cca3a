"""Keeps of a training what the store keeps: the newest of each step, and nothing that was told in vain."""

from dataclasses import dataclass, field
from typing import Any

import torch

from worker.events import Evaluated, Event, Finished, Progress, Sampled, Saved, Setback, Started
from worker.resume_point import ResumePoint


@dataclass
class Keeper:
    """Told the events of one job's attempts, one after another."""

    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)
    samples: dict[int, str] = field(default_factory=dict)
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    setbacks: list[Setback] = field(default_factory=list)
    resume_point: bytes | None = None
    finished: Finished | None = None

    def tell(self, event: Event) -> None:
        match event:
            case Started(step=step):
                self._drop_after(step)
            case Setback(to_step=step):
                self._drop_after(step)
                self.setbacks.append(event)
            case Progress():
                told = ("train_loss", "learning_rate", "gradient_norm", "steps", "epoch", "fraction")
                self.metrics.setdefault(event.step, {}).update({name: getattr(event, name) for name in told})
            case Evaluated():
                self.metrics.setdefault(event.step, {}).update(val_loss=event.val_loss, best=event.best)
            case Sampled():
                self.samples[event.step] = event.text
            case Saved():
                self.resume_point = event.resume_point
                if event.checkpoint is not None:
                    self.checkpoints[event.step] = event.checkpoint
            case Finished():
                self.finished = event

    def _drop_after(self, step: int) -> None:
        self.metrics = {at: row for at, row in self.metrics.items() if at <= step}
        self.samples = {at: text for at, text in self.samples.items() if at <= step}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Of the resume point."""
        return ResumePoint.decode(self.resume_point or b"").tensors

    def differences(self, other: "Keeper") -> list[str]:
        """What is not the same in both, to the bit; times and speeds aside."""
        names = ("metrics", "samples", "checkpoints", "finished")
        different = [name for name in names if getattr(self, name) != getattr(other, name)]
        ours, theirs = (ResumePoint.decode(keeper.resume_point or b"") for keeper in (self, other))
        different += [name for name in ("course", "plan") if ours.values[name] != theirs.values[name]]
        tensors = ours.tensors.keys() | theirs.tensors.keys()
        return different + [name for name in tensors if not _same(ours.tensors.get(name), theirs.tensors.get(name))]


def _same(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> bool:
    return ours is not None and theirs is not None and torch.equal(ours, theirs)
