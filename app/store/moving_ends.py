"""The two ends of a move: a database that nobody else uses, and an empty one that is filled in one transaction.

Knows the tables by name alone. Invariants: within `held_source` nobody changes what is read, and it is left as it was;
what is written within `empty_target` is there as a whole when the block ends well, and else nothing of it is.
"""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, StaticPool, inspect, make_url, text
from sqlalchemy.engine import URL

from app.store.database import Database, new_engine
from app.store.driver_errors import BUSY_SECONDS, damage_told
from app.store.errors import DatabaseUnusable, NotMoved
from app.store.migrate import known_revision, migrate
from app.store.opening import is_sqlite, open_as_it_is, open_existing, parsed_url
from app.store.part_file import BESIDE, beside, part_file
from app.store.postgres_engine import is_postgres
from app.store.schema import REVISIONS, metadata
from app.store.sqlite_engine import begin_as_told, check_file, newest_sqlite
from app.store.sqlite_files import connect_to_file, processes_with

STOP = "stop the service and its workers first"

GONE_SECONDS = 2.0
"""So long the server may take to notice that a service which has just been stopped is gone."""
GIVEN_UP_SECONDS = BUSY_SECONDS + GONE_SECONDS
"""So long a service that is started meanwhile may wait for our locks: then it has given up, and is gone."""

PATIENCE = text("SELECT set_config('idle_in_transaction_session_timeout', '10min', true)")
"""One end waits while the other works, for longer than the seconds that others get; but a machine that is gone without
a word must not keep the locks for ever."""

OTHERS = text(
    "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND usesysid IS NOT NULL "
    "AND coalesce(backend_type, 'client backend') = 'client backend' ORDER BY pid"
)
"""Every other client of the database, whatever its name. An unprivileged role is not told what another role's session
is; what is no client has no role at all, but for workers of extensions."""


def parsed_address(address: str) -> URL:
    """The parts of a database's address, which may be the mere path of an SQLite file. Raises DatabaseUnusable."""
    is_misspelt = (
        "://" not in address and ("@" in address or address.startswith("postgres")) and not Path(address).exists()
    )
    # A misspelt address is none of a file, and holds a password perhaps, which no message may tell.
    url = parsed_url(address) if "://" in address or is_misspelt else URL.create("sqlite", database=address)
    if is_sqlite(url):
        check_file(url)
    return url


def shown(url: URL) -> str:
    """The address without what may be secret."""
    return url.database or "" if is_sqlite(url) else url.set(password=None, query={}).render_as_string()


def is_same_on_server(one: URL, other: URL) -> bool:
    """Whether both name the same database of the same PostgreSQL server, each in its way. Raises StoreError."""
    return is_postgres(one) and is_postgres(other) and _identity(one) == _identity(other)


def _identity(url: URL) -> tuple[Any, ...]:
    """Its number on its server, and since when that runs, to the microsecond."""
    look = "SELECT oid, pg_postmaster_start_time() FROM pg_database WHERE datname = current_database()"
    with closing(open_as_it_is(url.render_as_string(hide_password=False))) as database, database.read() as connection:
        return tuple(connection.execute(text(look)).one())


@contextmanager
def held_source(url: URL) -> Iterator[Connection]:
    """One view of a database of the newest schema, which nobody else can write to. Raises NotMoved, DatabaseUnusable.

    That somebody has it open is refused, not waited for: what a service writes after its database was moved would be
    lost.
    """
    with _held_file(Path(url.database or "")) if is_sqlite(url) else _held_on_server(url) as connection:
        revision = known_revision(connection)
        if revision is None:
            raise DatabaseUnusable(f"there is nothing in {shown(url)}")
        if revision != REVISIONS[-1]:
            raise NotMoved(
                f"{shown(url)} has schema {revision}, not {REVISIONS[-1]}: a start of the service migrates it"
            )
        yield connection


@contextmanager
def _held_file(path: Path) -> Iterator[Connection]:
    if not path.is_file():
        raise DatabaseUnusable(f"{path} is a folder" if path.is_dir() else f"there is no database {path}")
    if processes := processes_with(path):
        raise NotMoved(f"{path} is in use by process {', '.join(map(str, processes))}: {STOP}")
    with closing(connect_to_file(path)) as alone:
        _lock(alone, path)
        with closing(_database_of(alone)) as database, database.read() as connection:
            yield connection


def _lock(connection: Any, path: Path) -> None:
    """Nobody else has the file open, or can open it until the connection is closed, in whatever container he is.

    In WAL mode whoever has it open holds a lock that this one is not granted beside. With a rollback journal an idle
    connection holds none, and is seen in /proc alone.
    """
    driver = newest_sqlite()
    try:
        with damage_told(driver):
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")  # in this mode the lock stays
    except driver.DatabaseError as error:
        if "locked" in str(error):
            raise NotMoved(f"{path} is in use by another process: {STOP}") from error
        raise DatabaseUnusable(f"cannot open the database {path}: {error}") from error


def _database_of(connection: Any) -> Database:
    """A database with this one connection of SQLite's driver."""
    engine = new_engine(make_url("sqlite://"), module=newest_sqlite(), creator=lambda: connection, poolclass=StaticPool)
    begin_as_told(engine)
    return Database(engine)


@contextmanager
def _held_on_server(url: URL) -> Iterator[Connection]:
    with closing(open_existing(url.render_as_string(hide_password=False))) as database, database.read() as connection:
        # Before anything is read: the view of the transaction is then of a moment after the last one has written.
        # Whoever opens the database reads its version first, and waits here; who has read it before is seen below.
        _lock_tables(connection, ["alembic_version"], "ACCESS EXCLUSIVE")
        _lock_tables(connection, metadata.tables, "SHARE")
        connection.execute(PATIENCE)
        check_unused((connection, url), seconds=GONE_SECONDS)
        yield connection


def _lock_tables(connection: Connection, names: Any, mode: str) -> None:
    quote = connection.dialect.identifier_preparer.quote
    if names:
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(map(quote, names))} IN {mode} MODE")


def check_unused(*ends: tuple[Connection, URL], seconds: float | None = None) -> None:
    """Nobody else is connected to any of these, within so many seconds at the latest. Raises NotMoved.

    Locks keep others from writing meanwhile; this, from going on with what was moved away under them. Without `seconds`
    whoever waits for the locks has the time to give up.
    """
    until = time.monotonic() + (GIVEN_UP_SECONDS if seconds is None else seconds)
    while told := [f"{shown(url)} is in use by {others}" for end, url in ends if (others := _others(end))]:
        if time.monotonic() > until:
            raise NotMoved(f"{'; '.join(told)}: {STOP}, and whatever else is connected")
        time.sleep(0.05)


def _others(connection: Connection) -> str:
    """Who else is connected now; a file that is held is open nowhere else."""
    if connection.dialect.name != "postgresql":
        return ""
    connection.execute(text("SELECT pg_stat_clear_snapshot()"))
    return ", ".join(f"session {pid} ({name or 'no name'})" for pid, name in connection.execute(OTHERS))


@contextmanager
def empty_target(url: URL) -> Iterator[Connection]:
    """A transaction on an empty database of the newest schema, committed at the end. Raises NotMoved, DatabaseUnusable.

    All is one transaction, the tables' making too: broken off, by whatever, it leaves the database without a row, and
    nothing to clear away. PostgreSQL keeps no log of what it would have to undo, so that gigabytes are no burden to it.
    """
    with _new_file(Path(url.database or "")) if is_sqlite(url) else _empty_on_server(url) as connection:
        migrate(lambda: nullcontext(connection), lambda: nullcontext(connection))
        yield connection


@contextmanager
def _empty_on_server(url: URL) -> Iterator[Connection]:
    address = url.render_as_string(hide_password=False)
    # The lock of migrations: a service that starts meanwhile waits for it, and gives up.
    with closing(open_as_it_is(address)) as database, database.migrating() as connection:
        connection.execute(PATIENCE)
        check_unused((connection, url), seconds=GONE_SECONDS)
        known_revision(connection)  # refuses what is another program's
        tables = inspect(connection).get_table_names()
        _lock_tables(connection, tables, "ACCESS EXCLUSIVE")
        _check_empty(connection, tables, url)
        yield connection


def _check_empty(connection: Connection, tables: list[str], url: URL) -> None:
    quote = connection.dialect.identifier_preparer.quote
    rows = {
        table: connection.exec_driver_sql(f"SELECT count(*) FROM {quote(table)}").scalar_one()  # noqa: S608
        for table in sorted(tables)
        if table != "alembic_version"
    }
    if told := ", ".join(f"{table} {count}" for table, count in rows.items() if count):
        raise NotMoved(f"{shown(url)} is not empty, it has rows: {told}")


@contextmanager
def _new_file(path: Path) -> Iterator[Connection]:
    """Under its own name the file is whole; while it is written it has another, which no service opens."""
    if not path.absolute().parent.is_dir():
        raise NotMoved(f"there is no folder {path.parent}")
    for taken in (path, *(beside(path, suffix) for suffix in BESIDE)):
        if os.path.lexists(taken):
            raise NotMoved(f"{taken} exists: name a file that is not there yet")
    with part_file(path) as part:
        with closing(connect_to_file(part.path)) as writer:
            writer.execute("PRAGMA auto_vacuum=INCREMENTAL")  # has an effect only before there is a page
            writer.execute("PRAGMA foreign_keys=ON")
            writer.execute("PRAGMA synchronous=OFF")  # it is synced as a whole before it gets its name
            with closing(_database_of(writer)) as database, database.migrating() as connection:
                yield connection
        part.publish(path, new=True)
