"""Bringing a database to the schema of this code.

Knows Alembic, which is imported only when there is something to do. Invariant: a migration is one transaction under the
write lock, so of two processes that start at once one migrates and the other finds it done; and a crash leaves the
schema of before.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, event, inspect, text

from app.fault_points import fault_point
from app.store.errors import DatabaseUnusable, SchemaTooNew
from app.store.schema import REVISIONS

MIGRATIONS = Path(__file__).parent / "migrations"

Transaction = Callable[[], AbstractContextManager[Connection]]


def known_revision(connection: Connection) -> str | None:
    """The schema version of a database, None for an empty one. Raises DatabaseUnusable or SchemaTooNew."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise DatabaseUnusable(f"this database belongs to another program: it has a table {tables[0]!r}")
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if revision is not None and revision not in REVISIONS:
        raise SchemaTooNew(f"the database has schema {revision}, this version of Charsmith knows {REVISIONS[-1]}")
    return None if revision is None else str(revision)


def migrate(read: Transaction, migrating: Transaction) -> None:
    """The database has the newest schema. Raises DatabaseUnusable or SchemaTooNew, and then nothing has changed."""
    with read() as connection:
        if known_revision(connection) == REVISIONS[-1]:
            return
    with migrating() as connection:
        if known_revision(connection) != REVISIONS[-1]:
            _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # before the import, which tells of its plugins
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    event.listen(connection, "before_cursor_execute", lambda *_: fault_point("migration.statement"))
    command.upgrade(config, "head")
