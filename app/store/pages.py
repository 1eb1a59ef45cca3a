"""Lists in pages, newest first unless it is said otherwise.

A page goes by the ascending `sequence` of its table, so rows added meanwhile never shift or repeat what was shown.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Select, Table, select

from app.store.errors import InvalidCursor
from app.store.names import is_id
from app.store.rows import record

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the cursor (`after`) that gives the next ones; None at the end."""

    data: list[T]
    next: str | None


def read_page(
    connection: Connection,
    cls: type[T],
    query: Select[Any],
    table: Table,
    limit: int,
    after: str | None,
    *,
    oldest_first: bool = False,
) -> Page[T]:
    """At most `limit` rows of `query`, which selects from `table`: those that follow its row with the id `after`."""
    sequence = table.c.sequence
    if after is not None:
        place = _place(connection, table, after)
        query = query.where(sequence > place if oldest_first else sequence < place)
    rows = connection.execute(query.order_by(sequence if oldest_first else sequence.desc()).limit(limit + 1)).all()
    data = [record(cls, row) for row in rows[:limit]]
    return Page(data, rows[limit - 1].id if len(rows) > limit else None)


def _place(connection: Connection, table: Table, after: str) -> int:
    place = None
    if is_id(after):  # not every string can be asked for
        place = connection.execute(select(table.c.sequence).where(table.c.id == after)).scalar()
    if place is None:
        raise InvalidCursor(after)
    return int(place)
