"""What two trainings are compared by: all that they told and all that they ended with."""

import torch

from worker.events import Evaluated, Event, Finished, Progress, Sampled, Saved
from worker.resume_point import ResumePoint


def curve_of(events: list[Event]) -> list[object]:
    """Everything told that does not depend on the clock, in order, without what was told twice."""
    told: list[object] = []
    for event in events:
        if isinstance(event, Progress):
            told.append(
                (event.step, event.train_loss, event.learning_rate, event.gradient_norm, event.steps, event.epoch)
            )
        elif isinstance(event, Evaluated | Sampled | Finished):
            told.append(event)
        elif isinstance(event, Saved) and event.checkpoint is not None:
            told.append((event.step, event.train_loss, event.val_loss, event.best, event.checkpoint))
    return told


def final_tensors(events: list[Event]) -> dict[str, torch.Tensor]:
    saved = [event for event in events if isinstance(event, Saved)][-1]
    return ResumePoint.decode(saved.resume_point).tensors
