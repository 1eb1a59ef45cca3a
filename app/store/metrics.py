"""A job's history in numbers, one row per step that was measured.

Invariant: numbers are finite or None, whatever training made of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, delete, select

from app.store.database import Database, upsert
from app.store.errors import NotFound
from app.store.rows import record
from app.store.schema import jobs, metrics


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
    memory_bytes: int | None


_MEASURES = tuple(field.name for field in fields(MetricRow) if field.name != "step")


def finite(value: float | None) -> float | None:
    """The number, or None where it is none that can be stored and compared."""
    return value if value is not None and math.isfinite(value) else None


def read_metrics(database: Database, job_id: str) -> list[MetricRow]:
    """All of a job's rows by step. Raises NotFound for an unknown job."""
    with database.read() as connection:
        if connection.execute(select(jobs.c.id).where(jobs.c.id == job_id)).first() is None:
            raise NotFound("job", job_id)
        query = select(metrics).where(metrics.c.job_id == job_id).order_by(metrics.c.step)
        return [record(MetricRow, row) for row in connection.execute(query)]


def write_metrics(connection: Connection, job_id: str, step: int, measured: Mapping[str, Any]) -> None:
    """What of `measured` is a metric stands in the row of the step, beside what stood there."""
    values = {name: finite(measured[name]) for name in _MEASURES if name in measured}
    upsert(connection, metrics, ("job_id", "step"), job_id=job_id, step=step, **values)


def drop_metrics_after(connection: Connection, job_id: str, step: int) -> None:
    """Rows later than `step` are gone."""
    connection.execute(delete(metrics).where(metrics.c.job_id == job_id, metrics.c.step > step))
