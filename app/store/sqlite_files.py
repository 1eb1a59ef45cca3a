"""SQLite databases as files: where one is, and a look into it that leaves it as it is.

Knows no tables. Invariant: database files are opened by SQLite alone. Whoever opens one plainly and closes it again
drops the locks that this process holds on it.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import QueuePool, make_url

from app.store.database import Database, new_engine
from app.store.driver_errors import BUSY_SECONDS, named_errors
from app.store.errors import DatabaseUnusable
from app.store.opening import is_sqlite, parsed_url
from app.store.sqlite_engine import begin_as_told, check_file, newest_sqlite


def sqlite_file(url: str) -> Path:
    """The file of an SQLite database, whether or not it is there. Raises DatabaseUnusable for another database."""
    parsed = parsed_url(url)
    if not is_sqlite(parsed):
        raise DatabaseUnusable(
            f"this is for SQLite, and the database is {parsed.get_backend_name()}: use that server's own tools, as "
            "pg_dump and pg_restore"
        )
    check_file(parsed)
    return Path(parsed.database or "").resolve()


def connect_to_file(path: Path, *, static: bool = False) -> Any:
    """A connection of the driver to an SQLite file that is there, which it leaves as it is: see `look_at`."""
    how = "mode=ro&immutable=1" if static else "mode=rw"
    with named_errors(newest_sqlite()):
        return newest_sqlite().connect(
            f"{path.absolute().as_uri()}?{how}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )


def look_at(path: Path, *, static: bool = False) -> Database:
    """An SQLite file of any schema, to read: nothing is set, created or migrated.

    `static`: nobody writes to it, and only the file itself is read: no lock is taken, no file made beside it.
    """
    engine = new_engine(
        make_url("sqlite://"),
        module=newest_sqlite(),
        creator=lambda: connect_to_file(path, static=static),
        poolclass=QueuePool,
        pool_timeout=BUSY_SECONDS,
    )
    begin_as_told(engine)
    return Database(engine)


def processes_with(path: Path) -> list[int]:
    """The processes that have the file open, as far as /proc shows them."""
    if not path.exists():
        return []
    wanted, found = path.stat(), set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it has ended, or is another user's
            if os.path.samestat(link.stat(), wanted):
                found.add(int(link.parts[2]))
    return sorted(found - {os.getpid()})
