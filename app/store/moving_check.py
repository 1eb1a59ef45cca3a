"""Whether what was moved is what there was: row by row, and chunk by chunk.

Knows both ends by their connections alone. Invariant: it passes only if each row of the one end is one of the other,
and there is none beside; memory stays at a few rows.
"""

import hashlib
import math
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import zip_longest
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, String, Table, func, select
from sqlalchemy.exc import DBAPIError

from app.store.driver_errors import DAMAGED
from app.store.errors import NotMoved
from app.store.schema import blob_chunks, blobs
from app.store.verification import owners_of_blobs

ROWS_AT_ONCE = 500
LARGE_ROWS_AT_ONCE = 4
LARGE_ROWS = ("blob_chunks", "vocabularies")
"""Tables of which a single row may be megabytes."""

Advance = Callable[[Table, int], None]
"""Told of so many rows that a table has been got on by."""
Rows = Generator[Row[Any]]
"""To be closed: PostgreSQL's cursor is."""


def batches(connection: Connection, table: Table, query: Select[Any]) -> Generator[list[Row[Any]]]:
    """The rows of a query on the table, a few at a time; close it. Raises NotMoved for what cannot be read."""
    size = LARGE_ROWS_AT_ONCE if table.name in LARGE_ROWS else ROWS_AT_ONCE
    streamed = query.execution_options(yield_per=size)
    try:
        with connection.execute(streamed) as result:
            for partition in result.partitions():
                yield list(partition)
    except ValueError as error:  # no time, say, or no JSON
        raise NotMoved(f"a row of {table.name} cannot be read: {error}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise NotMoved(f"a row of {table.name} cannot be read: {first_line(error)}") from error


def first_line(error: DBAPIError) -> str:
    """What the database says, without the row or the text that it may quote."""
    said = str(error.orig).partition("\n")[0]
    return DAMAGED if said.startswith("Could not decode to UTF-8") else said


def name_of(table: Table, row: Row[Any]) -> str:
    """Which row it is: its id, or what stands for one."""
    key = [table.c.id] if "id" in table.c else table.primary_key.columns
    return f"{table.name} {', '.join(str(row._mapping[column]) for column in key)}"


def check_rows(origin: Connection, new: Connection, table: Table, advance: Advance) -> None:
    """Return if both ends have the same rows. Raises NotMoved with the first that is another, missing or too many."""
    with closing(_in_order(origin, table)) as ours, closing(_in_order(new, table)) as theirs:
        for row, other in zip_longest(ours, theirs):
            _check_row(table, row, other)
            advance(table, 1)


def _in_order(connection: Connection, table: Table) -> Rows:
    order = [_bytewise(column, connection) for column in table.primary_key.columns]
    return _rows(connection, table, select(table).order_by(*order))


def _rows(connection: Connection, table: Table, query: Select[Any]) -> Rows:
    with closing(batches(connection, table, query)) as parts:
        for part in parts:
            yield from part


def _bytewise(column: ColumnElement[Any], connection: Connection) -> ColumnElement[Any]:
    """The column in the order of its bytes, which is SQLite's; PostgreSQL would sort text by a language."""
    is_text = isinstance(column.type, String) and connection.dialect.name == "postgresql"
    return column.collate("C") if is_text else column


def _check_row(table: Table, row: Row[Any] | None, other: Row[Any] | None) -> None:
    if row is not None and (other is None or _key(table, row) < _key(table, other)):
        raise NotMoved(f"{name_of(table, row)} is missing after the move")
    if other is not None and (row is None or _key(table, other) < _key(table, row)):
        raise NotMoved(f"{name_of(table, other)} is new after the move")
    assert row is not None
    assert other is not None
    changed = [name for name, a, b in zip(row._fields, row, other, strict=True) if not _same(a, b)]
    if changed:
        raise NotMoved(f"{name_of(table, row)} is not the same after the move: {', '.join(changed)}")


def _key(table: Table, row: Row[Any]) -> tuple[Any, ...]:
    """What the rows are in the order of: Python's of texts is that of their bytes in UTF-8."""
    return tuple(row._mapping[column] for column in table.primary_key.columns)


def _same(value: object, other: object) -> bool:
    if type(value) is not type(other):
        return False
    return value == other or (isinstance(value, float) and math.isnan(value) and math.isnan(other))  # type: ignore[arg-type]


def check_blobs(origin: Connection, new: Connection, advance: Advance) -> tuple[str, ...]:
    """Whose bytes are damaged, as they were before: not what their SHA-256 says. Raises NotMoved for a difference.

    Chunks are compared blob by blob, so that each one's bytes of the new end are hashed on the way.
    """
    owners, seen, damaged = owners_of_blobs(origin), 0, []
    with closing(_rows(origin, blobs, select(blobs))) as every:
        for blob in every:
            chunks, is_sound = _check_chunks(origin, new, blob, advance)
            seen += chunks
            if not is_sound and blob.id in owners:
                damaged.append(owners[blob.id])
    for end in (origin, new):
        if (there := end.execute(select(func.count()).select_from(blob_chunks)).scalar_one()) != seen:
            raise NotMoved(f"blob_chunks has {there} rows, {seen} of blobs that there are")
    return tuple(damaged)


def _check_chunks(origin: Connection, new: Connection, blob: Row[Any], advance: Advance) -> tuple[int, bool]:
    """How many chunks a blob has, the same at both ends, and whether they are what was stored once."""
    digest, size, count, whole = hashlib.sha256(), 0, 0, True
    query = select(blob_chunks).where(blob_chunks.c.blob_id == blob.id).order_by(blob_chunks.c.chunk_index)
    with closing(_rows(origin, blob_chunks, query)) as ours, closing(_rows(new, blob_chunks, query)) as theirs:
        for chunk, other in zip_longest(ours, theirs):
            _check_row(blob_chunks, chunk, other)
            digest.update(other.data)
            whole = whole and other.chunk_index == count
            size, count = size + len(other.data), count + 1
            advance(blob_chunks, 1)
    return count, whole and size == blob.bytes and digest.hexdigest() == blob.sha256
