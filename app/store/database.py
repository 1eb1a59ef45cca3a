"""Opening the database, and the two kinds of transaction on it.

Knows no tables but the version of them. What differs between SQLite and PostgreSQL lives here alone. Invariants: every
writing transaction holds the write lock from its first statement on (a read that turns into a write fails at once
under SQLite, whatever the timeout), and a reading one cannot write.
"""

import json
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.fault_points import fault_point
from app.store.errors import DatabaseBusy, DatabaseFailed, DatabaseUnusable, DiskFull, StoreError
from app.store.migrate import known_revision, migrate
from app.store.schema import REVISIONS

logger = logging.getLogger(__name__)

BUSY_SECONDS = 15
"""How long a writer waits for another: longer than a lease (13 s), so that a wait costs no job."""

LOG_BYTES = 64 * 1024 * 1024
"""The write-ahead log is cut to so many bytes when it begins anew."""
LOG_WAIT_MILLISECONDS = 500
"""For readers to end before the log is cut: so long nobody can write."""

VACUUM_PAGES = 1024
"""Pages given back per transaction: 4 MiB, some tens of milliseconds of the write lock."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Database:
    """An open database, usable from many threads. Close it at the end."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = _utc_now) -> None:
        self._engine = engine
        self._clock = clock
        self._counting: list[Any] = []
        self.dialect = engine.dialect.name

    def now(self) -> datetime:
        """The time to write down, in UTC. It ends the grace of unnamed blobs and the life of API keys; nothing else is
        decided by it."""
        return self._clock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view. Keep it short: a long one keeps the write-ahead log from shrinking."""
        with self._named_errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write, alone; committed at the end, rolled back by any exception. Keep it short."""
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
            if self.dialect == "postgresql":  # where writing transactions are not alone
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(20480)")
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
        with self._named_errors(), closing(self._engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def shorten_log(self) -> int:
        """The bytes of the write-ahead log, cut if they were too many.

        It begins anew only in a moment without readers, which may never come by itself; here it is waited for. While a
        single reader stays for longer (no transaction of ours does), nothing can be done.
        """
        log = Path(f"{self._engine.url.database}-wal")
        if self.dialect != "sqlite" or not log.exists() or log.stat().st_size <= LOG_BYTES:
            return 0
        with self._named_errors(), closing(self._engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={LOG_WAIT_MILLISECONDS}")
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        return log.stat().st_size

    def _vacuum_step(self) -> int:
        with self.write() as connection:
            # Each row that is stepped over gives back one page; the rows are empty, so only the driver fetches them.
            connection.connection.cursor().execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())

    def commits(self) -> "Commits | None":
        """Tells whether others have committed, on a connection of its own; None where that costs as much as looking."""
        if self.dialect != "sqlite":
            return None
        with self._named_errors():
            pooled = self._engine.raw_connection()
            connection = pooled.driver_connection
            pooled.detach()
            assert connection is not None
            connection.execute("PRAGMA busy_timeout=0")
        self._counting.append(connection)
        return Commits(connection, self._engine.dialect.loaded_dbapi)

    def close(self) -> None:
        """All connections are closed."""
        for connection in self._counting:
            connection.close()
        self._engine.dispose()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        with named_errors(self._engine.dialect.loaded_dbapi):
            yield


@contextmanager
def named_errors(driver: Any) -> Iterator[None]:
    """Whatever the database does to us is a StoreError; what we do wrong (SQL, constraints) stays what it is."""
    try:
        yield
    except (DBAPIError, PoolTimeout, driver.Error) as error:  # the driver's own: cursors used directly
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, (driver.IntegrityError, driver.ProgrammingError)):
            raise
        raise _named(str(cause)) from error


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


def open_database(
    url: str, *, clock: Callable[[], datetime] = _utc_now, sqlite_module: ModuleType | None = None
) -> Database:
    """The database at `url`, created if need be and brought to the newest schema.

    Raises DatabaseUnusable (not a database, or another program's) and SchemaTooNew; the file is then as it was.
    """
    parsed = parsed_url(url)
    engine = _sqlite_engine(parsed, sqlite_module or newest_sqlite()) if is_sqlite(parsed) else _create(parsed)
    database = Database(engine, clock)
    with _opening(engine, parsed):
        migrate(database.read, database.migrating)
    return database


def open_existing(url: str) -> Database:
    """The database at `url`, for a look: nothing is created, and no table is changed.

    Raises DatabaseUnusable when there is none, or one of another schema than this code's.
    """
    parsed = parsed_url(url)
    if is_sqlite(parsed) and not (Path(parsed.database or "").is_file() and _look(parsed, newest_sqlite())):
        raise DatabaseUnusable(f"there is no database {parsed.database}")
    engine = _sqlite_engine(parsed, newest_sqlite()) if is_sqlite(parsed) else _create(parsed)
    database = Database(engine)
    with _opening(engine, parsed), database.read() as connection:
        if (revision := known_revision(connection)) != REVISIONS[-1]:
            raise DatabaseUnusable(
                f"the database has schema {revision}, not {REVISIONS[-1]}: it is migrated by a start"
            )
    return database


def parsed_url(url: str) -> URL:
    """The parts of a database's address. Raises DatabaseUnusable."""
    try:
        return make_url(url)
    except ArgumentError as error:
        raise DatabaseUnusable(f"not a database URL: {url!r}") from error


@contextmanager
def _opening(engine: Engine, url: URL) -> Iterator[None]:
    """What fails within leaves nothing open."""
    try:
        yield
    except DatabaseFailed as error:
        engine.dispose()
        raise DatabaseUnusable(f"cannot open the database {url.database}: {error}") from error
    except BaseException:
        engine.dispose()
        raise


def is_sqlite(url: URL) -> bool:
    """Whether the address is an SQLite database's."""
    return url.get_backend_name() == "sqlite"


def _create(url: URL, **options: Any) -> Engine:
    # A threaded server runs 40 requests at once; each holds a connection for one short transaction. What a statement
    # was given does not get into the log with its error: it may be a piece of a text.
    held = {"pool_size": 8, "max_overflow": 56, "pool_timeout": BUSY_SECONDS}
    return create_engine(url, json_serializer=_json, hide_parameters=True, **held, **options)


def _sqlite_engine(url: URL, module: ModuleType) -> Engine:
    check_file(url)
    _look(url, module)
    wal = wal_is_safe(module.sqlite_version_info)
    if not wal:
        logger.warning(
            "SQLite %s can lose commits in WAL mode; the slower rollback journal is used", module.sqlite_version
        )
    engine = _create(url, module=module, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver would begin transactions by itself, and only deferred ones.
        connection.isolation_level = None
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


def _look(url: URL, module: ModuleType) -> str | None:
    """The schema's version, by a look that changes nothing: refuses what is not ours before a pragma writes to it."""
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnusable(f"cannot make the folder of the database {path}: {error}") from error
    engine = create_engine(url, module=module, poolclass=NullPool)
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


def _named(message: str) -> StoreError:
    """What went wrong, by the name that tells a caller what to do about it."""
    if "database is locked" in message:
        return DatabaseBusy(BUSY_SECONDS)
    return DiskFull() if "disk is full" in message else DatabaseFailed(message)


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
