"""What a writing transaction holds under PostgreSQL, where many write at once. Under SQLite it is alone anyway.

Knows no tables. Invariant: rows are held in one order: corpus, job, model, checkpoints, blobs.
"""

from enum import IntEnum
from typing import Any, Literal

from sqlalchemy import Connection, FromClause, Select, func, select

Hold = Literal["as it is", "to change"]
"""For what a row is locked until the transaction's end: nobody else changes or deletes it, or nobody else holds it."""


def held_row(query: Select[Any], hold: Hold | None, table: FromClause) -> Select[Any]:
    """The query, whose rows of `table` are locked; None: they are not. Under SQLite everything is held anyway."""
    return query if hold is None else query.with_for_update(read=hold == "as it is", of=table)


LOCK_SECONDS = 3
"""How long one of these is waited for: who waits holds a connection, and a process has but sixteen."""


class Lock(IntEnum):
    """What no two writing transactions of an installation do at once, where no row stands for it."""

    SCHEMA = 20480
    QUEUE = 20481
    KEYS = 20482
    CORPORA = 20483
    MODELS = 20484


def take(connection: Connection, lock: Lock, *, seconds: float = LOCK_SECONDS) -> None:
    """It is this transaction's until its end. A writing transaction of SQLite has it already."""
    if connection.dialect.name == "postgresql":
        patience = func.set_config("lock_timeout", f"{seconds}s", True)
        connection.execute(select(patience, func.pg_advisory_xact_lock(lock.value)))
