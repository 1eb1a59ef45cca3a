"""Rows of the database as frozen records."""

from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import Row

T = TypeVar("T")


def record(cls: type[T], row: Row[Any]) -> T:
    """The dataclass whose fields are columns of the row."""
    values = row._mapping
    return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]
