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

from app.store.database import Database, new_engine, utc_now
from app.store.errors import DatabaseFailed, DatabaseUnusable
from app.store.migrate import known_revision, migrate
from app.store.schema import REVISIONS
from app.store.sqlite_engine import look, newest_sqlite, sqlite_engine


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
    engine = sqlite_engine(parsed, sqlite_module or newest_sqlite()) if is_sqlite(parsed) else new_engine(parsed)
    database = Database(engine, clock)
    with _opening(engine, parsed):
        migrate(database.read, database.migrating)
    return database


def open_existing(url: str) -> Database:
    """The database at `url`, for a look: nothing is created, and no table is changed.

    Raises DatabaseUnusable when there is none, or one of another schema than this code's.
    """
    parsed = parsed_url(url)
    if is_sqlite(parsed) and not (Path(parsed.database or "").is_file() and look(parsed, newest_sqlite())):
        raise DatabaseUnusable(f"there is no database {parsed.database}")
    engine = sqlite_engine(parsed, newest_sqlite()) if is_sqlite(parsed) else new_engine(parsed)
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
