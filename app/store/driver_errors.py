"""What a database's driver raises, by the names of errors.py.

Knows the words of SQLite and the states of PostgreSQL, no tables. Invariants: whatever the database does to us is a
StoreError, and what we do wrong (SQL, constraints) stays what it is; no error tells what a statement was given or a row
holds, since errors are logged.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.store import room
from app.store.errors import DatabaseBusy, DatabaseFailed, DatabaseUnreachable, DiskFull, StoreError

BUSY_SECONDS = 15
"""How long a writer waits for another: longer than a lease (13 s), so that a wait costs no job."""

DAMAGED = "it is damaged: text in it is not UTF-8"

BUSY_STATES = {"40001", "40P01", "55P03", "57014", "25P03", "25P04", "53200"}
"""PostgreSQL's for: serialization failure, deadlock, lock not available in time, statement cancelled, idle in a
transaction or in one for too long, out of memory."""
FULL_STATES = {"53100"}
READ_ONLY = "25006"
"""What a server says that became a standby."""
AWAY_STATES = ("08", "57P0", "53300", "40003", READ_ONLY)
"""How those begin that mean: no connection, the server stops or starts, it has given all its connections, nobody knows
what became of a statement, it takes no writes."""


def name_as_told(engine: Engine) -> None:
    """What the engine's connections raise says what is damaged, and quotes nothing that is stored."""

    @event.listens_for(engine, "handle_error")
    def tell_no_values(context: ExceptionContext) -> None:
        # PostgreSQL's details quote rows and documents; the message alone does not.
        original = context.original_exception
        if (primary := getattr(getattr(original, "diag", None), "message_primary", None)) is None:
            return
        original.args = (primary,)
        if context.sqlalchemy_exception is not None:
            kind = type(original)
            context.sqlalchemy_exception.args = (f"({kind.__module__}.{kind.__name__}) {primary}",)
        if getattr(original, "sqlstate", None) == READ_ONLY:  # a standby: the next connection may find the other one
            context.is_disconnect = True

    @event.listens_for(engine, "handle_error")
    def name_damage(context: ExceptionContext) -> DatabaseError | None:
        is_damage = context.dialect.name == "sqlite" and isinstance(context.original_exception, UnicodeDecodeError)
        if not is_damage:
            return None
        damage = context.dialect.loaded_dbapi.DatabaseError(DAMAGED)
        return DatabaseError(context.statement, None, damage, hide_parameters=True)


@contextmanager
def named_errors(driver: Any, file: Path | None = None) -> Iterator[None]:
    """Whatever the database does to us is a StoreError; what we do wrong (SQL, constraints) stays what it is.

    `file` is SQLite's, where what could not be written may be for want of room.
    """
    try:
        yield
    except (DBAPIError, PoolTimeout, driver.Error) as error:  # the driver's own: cursors used directly
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        if isinstance(cause, (driver.IntegrityError, driver.ProgrammingError)):
            raise
        if isinstance(cause, PoolTimeout):
            raise DatabaseBusy(BUSY_SECONDS) from error
        if isinstance(cause, driver.DataError):
            raise DatabaseFailed(str(cause)) from error
        raise _named(cause, file) from error


@contextmanager
def damage_told(driver: Any) -> Iterator[None]:
    """Around calls of SQLite's driver: its DatabaseError for text that is not UTF-8.

    SQLite quotes what it cannot make sense of, and the driver then fails over the error's own message. Not around code
    of ours, whose errors of the kind are faults.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise driver.DatabaseError(DAMAGED) from error


def _named(cause: BaseException, file: Path | None) -> StoreError:
    """What went wrong, by the name that tells a caller what to do about it."""
    message = str(cause)
    if hasattr(cause, "sqlstate"):
        return _named_by_postgres(message, cause.sqlstate)
    if "database is locked" in message:
        return DatabaseBusy(BUSY_SECONDS)
    if "disk is full" in message or ("disk I/O error" in message and file is not None and room.is_lacking(file)):
        return DiskFull()
    return DatabaseFailed(message)


def _named_by_postgres(message: str, state: str | None) -> StoreError:
    """By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html); none: there was no server."""
    if state in BUSY_STATES:
        return DatabaseBusy(BUSY_SECONDS)
    if state in FULL_STATES:
        return DiskFull()
    if state is None or state.startswith(AWAY_STATES):
        return DatabaseUnreachable(message)
    return DatabaseFailed(message)
