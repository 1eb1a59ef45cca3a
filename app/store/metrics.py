"""A job's history in numbers."""

from dataclasses import dataclass

from app.store.database import Database


@dataclass(frozen=True, slots=True)
class MetricRow:
    """What is known of a step; None: not measured there, or not a finite number."""

    step: int
    epoch: float | None
    train_loss: float | None
    val_loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    characters_per_second: float | None
    seconds: float | None


def read_metrics(database: Database, job_id: str) -> list[MetricRow]:
    """All of a job's rows by step. Raises NotFound for an unknown job."""
    raise NotImplementedError
