"""The two kinds of transaction on the database.

Knows no tables. What differs between SQLite and PostgreSQL lives here, in opening.py, driver_errors.py, holding.py,
notices.py, sqlite_engine.py and postgres_engine.py. Invariants: a reading transaction sees one moment and cannot write.
Under SQLite every writing one holds the write lock from its first statement on (a read that turns into a write fails at
once, whatever the timeout), so it is alone. Under PostgreSQL many write at once: whoever decides on a row holds it
first (holding.py).
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    create_engine,
    event,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL

from app.fault_points import fault_point
from app.store.driver_errors import BUSY_SECONDS, damage_told, name_as_told, named_errors
from app.store.holding import Lock, take

LOG_BYTES = 64 * 1024 * 1024
"""The write-ahead log is cut to so many bytes when it begins anew."""
LOG_WAIT_MILLISECONDS = 500
"""For readers to end before the log is cut: so long nobody can write."""

VACUUM_PAGES = 1024
"""Pages given back per transaction: 4 MiB, some tens of milliseconds of the write lock."""


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


class Database:
    """An open database, usable from many threads. Close it at the end."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._readers = engine
        if engine.dialect.name == "postgresql":
            self._readers = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._clock = clock
        self._counting: WeakSet[Commits] = WeakSet()
        self.dialect = engine.dialect.name
        self._file = Path(engine.url.database or "") if self.dialect == "sqlite" else None

    def now(self) -> datetime:
        """The time to write down, in UTC. It ends the grace of unnamed blobs and the life of API keys; nothing else is
        decided by it."""
        return self._clock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view. Keep it short: a long one keeps the write-ahead log from shrinking."""
        with self._named_errors(), self._readers.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; committed at the end, rolled back by any exception. Keep it short."""
        with (
            self._named_errors(),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A writing transaction that no second process enters to change tables."""
        with self.write() as connection:
            take(connection, Lock.SCHEMA, seconds=BUSY_SECONDS)
            yield connection

    def give_back_space(self) -> None:
        """The file is as small as its contents allow, reached in small steps that let others write in between."""
        if self.dialect != "sqlite":
            return
        free = self._vacuum_step()
        while free and (left := self._vacuum_step()) < free:
            free = left
            fault_point("space.given_back")
            let_others_write()
        # In WAL mode the file itself shrinks when the log is copied into it.
        with self.driver_errors(), closing(self._engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def shorten_log(self) -> int:
        """The bytes of the write-ahead log, cut if they were too many.

        It begins anew only in a moment without readers, which may never come by itself; here it is waited for. While a
        single reader stays for longer (no transaction of ours does), nothing can be done.
        """
        log = Path(f"{self._engine.url.database}-wal")
        if self.dialect != "sqlite" or not log.exists() or log.stat().st_size <= LOG_BYTES:
            return 0
        with self.driver_errors(), closing(self._engine.raw_connection()) as connection:
            cursor = connection.cursor()
            # Most of it is copied while others write; what holds them up has the rest alone to copy.
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            cursor.execute(f"PRAGMA busy_timeout={LOG_WAIT_MILLISECONDS}")
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        return log.stat().st_size

    def bytes(self) -> int:
        """How large the database is, SQLite's write-ahead log included."""
        if self.dialect == "sqlite":
            file = str(self._engine.url.database)
            return sum(path.stat().st_size for path in (Path(file), Path(f"{file}-wal")) if path.exists())
        with self.read() as connection:
            return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())

    def _vacuum_step(self) -> int:
        with self.write() as connection:
            # Each row that is stepped over gives back one page; the rows are empty, so only the driver fetches them.
            connection.connection.cursor().execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())

    def commits(self) -> "Commits | None":
        """Tells whether others have committed, on a connection of its own; None where that costs as much as looking."""
        if self.dialect != "sqlite":
            return None
        with self.driver_errors():
            pooled = self._engine.raw_connection()
            connection = pooled.driver_connection
            pooled.detach()
            assert connection is not None
            connection.execute("PRAGMA busy_timeout=0")
        commits = Commits(connection, self._engine.dialect.loaded_dbapi)
        self._counting.add(commits)
        return commits

    @contextmanager
    def lasting_connection(self) -> Iterator[Any]:
        """A connection of PostgreSQL's driver for whoever listens for long: it is none of the pool's, and each of its
        statements is a transaction."""
        with self.driver_errors():
            pooled = self._engine.raw_connection()
            connection = pooled.driver_connection
            pooled.detach()
            assert connection is not None
            with closing(connection):
                connection.autocommit = True
                yield connection

    def close(self) -> None:
        """All connections are closed; one that a thread still uses, when it is given back."""
        for commits in self._counting:
            commits.close()
        event.listen(self._engine, "checkin", lambda _connection, record: record.invalidate())
        self._engine.dispose()

    @contextmanager
    def driver_errors(self) -> Iterator[None]:
        """Around calls of the driver, and nothing else: what the database does to them is a StoreError."""
        with self._named_errors(), damage_told(self._engine.dialect.loaded_dbapi):
            yield

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        with named_errors(self._engine.dialect.loaded_dbapi, self._file):
            yield


class Commits:
    """What others have committed, as a number that changes with it. For one thread at a time, also an event loop's:
    it takes two microseconds, waits for nobody and holds no transaction."""

    def __init__(self, connection: Any, driver: Any) -> None:
        self._connection = connection
        self._driver = driver

    def count(self) -> int | None:
        """The number; None if it cannot be told at once."""
        try:
            return int(self._connection.execute("PRAGMA data_version").fetchall()[0][0])
        except self._driver.Error:  # locked, damaged or closed: whoever looks for himself gets the error's name
            return None

    def close(self) -> None:
        """It tells nothing more."""
        self._connection.close()


def let_others_write() -> None:
    """A gap between two of many small transactions: SQLite hands the lock to whoever asks while it is free."""
    time.sleep(0.002)


def upsert(connection: Connection, table: Table, keys: Sequence[str], **values: Any) -> None:
    """A row with these values: inserted, or updated where one with the same `keys` exists."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    changed = {name: value for name, value in values.items() if name not in keys}
    connection.execute(insert(table).values(**values).on_conflict_do_update(index_elements=keys, set_=changed))


def insert_unless_there(connection: Connection, table: Table, key: str, **values: Any) -> bool:
    """Whether the row was inserted: False when one with the same `key` exists, also one added a moment ago."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    query = insert(table).values(**values).on_conflict_do_nothing(index_elements=[key])
    return connection.execute(query.returning(table.c[key])).first() is not None


def new_engine(url: URL, **options: Any) -> Engine:
    """Connections as they are used here, pooled unless `options` say otherwise.

    A threaded server runs 40 requests at once; each holds a connection for one short transaction. What a statement was
    given does not get into the log with its error: it may be a piece of a text.
    """
    held = {} if "poolclass" in options else {"pool_size": 8, "max_overflow": 56, "pool_timeout": BUSY_SECONDS}
    engine = create_engine(url, json_serializer=_json, hide_parameters=True, **(held | options))
    name_as_told(engine)
    return engine


def _json(value: object) -> str:
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    """The same value with null for what JSON cannot say: NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
