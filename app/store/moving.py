"""A database moved into another, empty one, of the same kind or not: every row, every byte, every counter.

Knows no kinds of databases (moving_ends.py does) and no table by what it means. Invariants: what it was moved from is
as it was; what it was moved to has all of it, read back and compared, or is as it was; memory stays at a few rows.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, func, insert, select
from sqlalchemy.exc import DBAPIError

from app.store.counters import give_only_above, highest_given
from app.store.errors import NotMoved
from app.store.moving_check import batches, check_blobs, check_rows, first_line, name_of
from app.store.moving_ends import check_unused, empty_target, held_source, is_same_on_server, parsed_address, shown
from app.store.schema import CHUNK_BYTES, REVISIONS, blob_chunks, metadata
from app.store.verification import Contents, contents_of

ROW_WEIGHT, CHUNK_WEIGHT = 1, CHUNK_BYTES // 1024
"""For the progress told: a row takes about as long as a KiB of a chunk."""

Tell = Callable[[str, float], None]
"""Told what is done now, and which share of all is done."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved."""

    source: str
    target: str
    """Both without passwords."""
    contents: Contents
    rows: dict[str, int]
    """By the names of the tables."""
    damaged: tuple[str, ...]
    """Whose bytes were damaged before, not known of until now, and are as damaged after."""


def move(source: str, target: str, tell: Tell = lambda _what, _share: None) -> Moved:
    """The database at `target`, empty before, holds what the one at `source` does: see docs/operation.md.

    Addresses may be paths of SQLite files. Raises NotMoved, or another StoreError, or OSError; then `target` is as it
    was. Where the connection is lost while it is committed, a second call tells by its refusal that it was.
    """
    from_url, to_url = parsed_address(source), parsed_address(target)
    if from_url == to_url or is_same_on_server(from_url, to_url):
        raise NotMoved(f"{shown(to_url)} is the database itself")
    with held_source(from_url) as origin, empty_target(to_url) as new:
        course = _Course(_counts(origin), tell)
        for table in metadata.sorted_tables:
            _copy(origin, new, table, course)
        give_only_above(new, highest_given(origin))
        damaged = _check(origin, new, course)
        contents = contents_of(new, REVISIONS[-1])
        check_unused((origin, from_url), (new, to_url))
    return Moved(shown(from_url), shown(to_url), contents, course.counts, damaged)


class _Course:
    """How far the move has come; everything is gone through twice."""

    def __init__(self, counts: dict[str, int], tell: Tell) -> None:
        self.counts = counts
        self.doing = "copying"
        self._tell = tell
        self._all = 2 * sum(count * self._weight(name) for name, count in counts.items()) or 1
        self._done = 0

    def advance(self, table: Table, rows: int) -> None:
        self._done += rows * self._weight(table.name)
        self._tell(f"{self.doing} {table.name}", self._done / self._all)

    @staticmethod
    def _weight(name: str) -> int:
        return CHUNK_WEIGHT if name == blob_chunks.name else ROW_WEIGHT


def _counts(connection: Connection) -> dict[str, int]:
    return {
        table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
        for table in metadata.sorted_tables
    }


def _copy(origin: Connection, new: Connection, table: Table, course: _Course) -> None:
    with closing(batches(origin, table, select(table))) as parts:
        for rows in parts:
            if new.dialect.name == "postgresql":
                for row in rows:
                    _check_storable(table, row)
            _insert(new, table, rows)
            course.advance(table, len(rows))


def _check_storable(table: Table, row: Row[Any]) -> None:
    """PostgreSQL refuses NUL in text. JSON it takes with one, and fails later, when it looks for something in it."""
    for name, value in zip(row._fields, row, strict=True):
        if _has_nul(value):
            raise NotMoved(f"{name_of(table, row)} cannot be stored in PostgreSQL: NUL in {name}")


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(map(_has_nul, value)) or any(map(_has_nul, value.values()))
    return isinstance(value, list) and any(map(_has_nul, value))


def _insert(new: Connection, table: Table, rows: list[Row[Any]]) -> None:
    if (refusal := _refusal(new, table, rows)) is None:
        return
    for row in rows:
        if (own := _refusal(new, table, [row])) is not None:
            raise NotMoved(f"{name_of(table, row)} cannot be stored: {first_line(own)}") from own
    raise refusal


def _refusal(new: Connection, table: Table, rows: list[Row[Any]]) -> DBAPIError | None:
    """Why the database does not take the rows; None: it did. A savepoint leaves the transaction usable."""
    try:
        with new.begin_nested():
            new.execute(insert(table), [dict(row._mapping) for row in rows])
    except DBAPIError as error:
        dbapi = new.dialect.loaded_dbapi
        if not isinstance(error.orig, (dbapi.DataError, dbapi.IntegrityError, dbapi.ProgrammingError)):
            raise
        return error
    return None


def _check(origin: Connection, new: Connection, course: _Course) -> tuple[str, ...]:
    """Whose bytes are damaged, as before. Raises NotMoved for any difference."""
    course.doing = "comparing"
    for table in metadata.sorted_tables:
        if table is not blob_chunks:
            check_rows(origin, new, table, course.advance)
    damaged = check_blobs(origin, new, course.advance)
    before, after = highest_given(origin), highest_given(new)
    if lower := [name for name in before if after[name] < before[name]]:
        raise NotMoved(f"{', '.join(lower)} would give numbers again that were given before")
    return damaged
