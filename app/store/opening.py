"""Opening the database at an address, created and migrated if need be, or for a look alone.

Knows no tables but the version of them. Invariant: what is not ours is left as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType

from sqlalchemy import Engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from app.store.database import Database, utc_now
from app.store.errors import DatabaseFailed, DatabaseUnreachable, DatabaseUnusable
from app.store.migrate import known_revision, migrate
from app.store.postgres_engine import check_server, is_postgres, postgres_engine, server_clock
from app.store.schema import REVISIONS
from app.store.sqlite_engine import look, newest_sqlite, sqlite_engine

FORMS = "it is sqlite:///FILE, or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"


def is_sqlite(url: URL) -> bool:
    """Whether the address is an SQLite database's."""
    return url.get_backend_name() == "sqlite"


def open_database(
    url: str, *, clock: Callable[[], datetime] = utc_now, sqlite_module: ModuleType | None = None
) -> Database:
    """The database at `url`, created if need be and brought to the newest schema.

    Raises DatabaseUnusable (not a database, or another program's) and SchemaTooNew; the file is then as it was.
    """
    parsed = parsed_url(url)
    engine = _engine(parsed, sqlite_module)
    database = Database(engine, clock)
    with _opening(engine, parsed):
        if is_postgres(parsed) and clock is utc_now:
            database = Database(engine, server_clock(engine))
        migrate(database.read, database.migrating)
    return database


def open_existing(url: str) -> Database:
    """The database at `url`, for a look: nothing is created, and no table is changed.

    Raises DatabaseUnusable when there is none, or one of another schema than this code's.
    """
    parsed = parsed_url(url)
    if is_sqlite(parsed) and not (Path(parsed.database or "").is_file() and look(parsed, newest_sqlite())):
        raise DatabaseUnusable(f"there is no database {parsed.database}")
    engine = _engine(parsed)
    database = Database(engine)
    with _opening(engine, parsed), database.read() as connection:
        if (revision := known_revision(connection)) != REVISIONS[-1]:
            raise DatabaseUnusable(
                f"the database has schema {revision}, not {REVISIONS[-1]}: it is migrated by a start"
            )
    return database


def open_as_it_is(url: str) -> Database:
    """The database on the PostgreSQL server at `url`, of any schema or none: no table is made or changed."""
    engine = postgres_engine(parsed_url(url))
    with _opening(engine, engine.url):
        return Database(engine)


def parsed_url(url: str) -> URL:
    """The parts of a database's address. Raises DatabaseUnusable; its message quotes no password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise DatabaseUnusable(f"not a database URL; {FORMS}") from error
    if not (is_sqlite(parsed) or is_postgres(parsed)):
        raise DatabaseUnusable(f"a database of kind {parsed.drivername!r} cannot be used; {FORMS}")
    if is_postgres(parsed) and not parsed.database:  # the server would take the one that bears the user's name
        raise DatabaseUnusable(f"a database URL on PostgreSQL ends with the database's name; {FORMS}")
    if "@" in (parsed.host or ""):  # what stands before it is a part of the password
        raise DatabaseUnusable(f"in a password of a database URL @ is written as %40; {FORMS}")
    return parsed


def _engine(url: URL, sqlite_module: ModuleType | None = None) -> Engine:
    return sqlite_engine(url, sqlite_module or newest_sqlite()) if is_sqlite(url) else postgres_engine(url)


@contextmanager
def _opening(engine: Engine, url: URL) -> Iterator[None]:
    """What fails within leaves nothing open."""
    try:
        if is_postgres(url):
            check_server(engine)
        yield
    except (DatabaseFailed, DatabaseUnreachable) as error:
        engine.dispose()
        raise DatabaseUnusable(f"cannot open the database {url.database}: {error}") from error
    except BaseException:
        engine.dispose()
        raise
