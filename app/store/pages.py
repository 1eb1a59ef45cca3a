"""Lists in pages, newest first.

A page goes by the ascending `sequence` of its table, so rows added meanwhile never shift or repeat what was shown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Connection, Row, Select, Table, select

from app.store.errors import InvalidCursor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the cursor (`after`) that gives the next ones; None at the end."""

    data: list[T]
    next: str | None


def read_page(
    connection: Connection,
    query: Select[tuple[object, ...]],
    table: Table,
    limit: int,
    after: str | None,
    make: Callable[[Row[tuple[object, ...]]], T],
) -> Page[T]:
    """At most `limit` rows of `query`, which selects `table`'s id, that are older than the row with the id `after`."""
    if after is not None:
        place = connection.execute(select(table.c.sequence).where(table.c.id == after)).scalar_one_or_none()
        if place is None:
            raise InvalidCursor(after)
        query = query.where(table.c.sequence < place)
    rows = connection.execute(query.order_by(table.c.sequence.desc()).limit(limit + 1)).all()
    more = len(rows) > limit
    return Page([make(row) for row in rows[:limit]], rows[limit - 1].id if more else None)
