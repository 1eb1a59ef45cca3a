"""SQLite as this store uses it: which one, with which settings, and transactions that begin as they are meant.

Knows no tables but the version of them.
"""

import logging
import sqlite3
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from app.store.database import LOG_BYTES, new_engine
from app.store.driver_errors import BUSY_SECONDS, damage_told
from app.store.errors import DatabaseUnusable
from app.store.migrate import known_revision

logger = logging.getLogger(__name__)


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite keeps every commit when two connections write and checkpoint a WAL at once.

    3.7.0 to 3.51.2 may not, but for the repaired branches: https://sqlite.org/wal.html#walresetbug
    """
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def newest_sqlite() -> ModuleType:
    """The bundled SQLite where it is installed, else the one of the Python in use."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    return dbapi2  # type: ignore[no-any-return]


def sqlite_engine(url: URL, module: ModuleType) -> Engine:
    """Connections to an SQLite database. Raises DatabaseUnusable for what is not a database of ours in a file."""
    check_file(url)
    look(url, module)
    wal = wal_is_safe(module.sqlite_version_info)
    if not wal:
        logger.warning(
            "SQLite %s can lose commits in WAL mode; the slower rollback journal is used", module.sqlite_version
        )
    engine = new_engine(url, module=module, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver would begin transactions by itself, and only deferred ones.
        connection.isolation_level = None
        with damage_told(module):
            _set_pragmas(connection, "wal" if wal else "delete", module)

    begin_as_told(engine)
    return engine


def check_file(url: URL) -> None:
    """Refuse an SQLite database that is not in a file. Raises DatabaseUnusable."""
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise DatabaseUnusable("SQLite needs a file: several threads and processes share it")


def begin_as_told(engine: Engine) -> None:
    """Transactions begin as `Database.read` or `Database.write` means them."""

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def look(url: URL, module: ModuleType) -> str | None:
    """The schema's version, by a look that changes nothing: refuses what is not ours before a pragma writes to it."""
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnusable(f"cannot make the folder of the database {path}: {error}") from error
    engine = new_engine(url, module=module, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
            return known_revision(connection)
    except DatabaseError as error:
        raise DatabaseUnusable(f"cannot open the database {path}: {error.orig}") from error
    finally:
        engine.dispose()


def _set_pragmas(connection: Any, journal: str, module: ModuleType) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    # Has an effect only before there is a page, so before the journal mode writes the first one; later it would
    # merely write, on every connection.
    if cursor.execute("PRAGMA page_count").fetchone()[0] == 0:
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    answer = _journal_mode(cursor, journal, module)
    if answer != journal:
        raise DatabaseUnusable(f"the database answered journal_mode {answer!r}, {journal!r} is needed")
    cursor.execute("PRAGMA synchronous=EXTRA")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
    cursor.close()


def _journal_mode(cursor: Any, journal: str, module: ModuleType) -> str:
    """The mode answered. Two processes that switch at once are refused without the usual wait, so it is asked again."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(cursor.execute(f"PRAGMA journal_mode={journal}").fetchone()[0])
        except module.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
