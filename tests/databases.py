"""Which database the tests run on, and how each gets an empty one of its own.

SQLite, unless `CHARSMITH_TEST_POSTGRES` gives the address of a PostgreSQL server (`postgresql+psycopg://user@host/db`,
of a user who may create databases): then that. A run makes its databases there and drops them; what is there stays.
"""

import atexit
import os
import secrets
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, update
from sqlalchemy.engine import URL

from app.store.database import Database
from app.store.opening import open_database
from app.store.schema import blob_chunks, metadata

VARIABLE = "CHARSMITH_TEST_POSTGRES"
SERVER = os.environ.get(VARIABLE, "")

sqlite_only = pytest.mark.skipif(bool(SERVER), reason="it is about SQLite's files")
once = pytest.mark.skipif(bool(SERVER), reason="it is the same whatever the database")
postgres_only = pytest.mark.skipif(not SERVER, reason=f"{VARIABLE} gives no server")


_free: list[str] = []
"""Databases on the server that tests have given back: emptying one takes a tenth of the time of making one."""


def fresh_database(folder: Path) -> str:
    """The address of a database of the newest schema, without a row. SQLite's is charsmith.db in the folder."""
    if SERVER:
        url = _free.pop() if _free else _migrated()
        _empty(url)
        return url
    path = folder / "charsmith.db"
    shutil.copy(_template_file(), path)
    return f"sqlite:///{path}"


def empty_database(folder: Path, name: str = "charsmith") -> str:
    """The address of a database without a table; SQLite's file, which has the name, is not there yet."""
    return _on_server() if SERVER else f"sqlite:///{folder / name}.db"


def remove_database(url: str) -> None:
    """It is gone."""
    name = str(make_url(url).database)
    if SERVER:
        _command(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    else:
        for file in Path(name).parent.glob(f"{Path(name).name}*"):
            file.unlink()


@cache
def _template_file() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "template.db"
    open_database(f"sqlite:///{path}").close()
    return path


def _migrated() -> str:
    url = _on_server()
    open_database(url).close()
    return url


def _empty(url: str) -> None:
    """No rows, and none counted; whoever is still connected is cut off."""
    leave = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{make_url(url).database}'"
    counted = [column for table in metadata.sorted_tables if (column := table.autoincrement_column) is not None]
    anew = (f"setval(pg_get_serial_sequence('{c.table.name}', '{c.name}'), 1, false)" for c in counted)
    commands = [f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)]
    command(url, f"{leave} AND pid <> pg_backend_pid()", *commands, f"SELECT {', '.join(anew)}")


def _on_server() -> str:
    name = f"charsmith_test_{secrets.token_hex(6)}"
    _command(f'CREATE DATABASE "{name}" TEMPLATE template0 ENCODING UTF8')
    url = _server().set(database=name).render_as_string(hide_password=False)
    atexit.register(remove_database, url)
    return url


@cache
def database_of(folder: Path) -> str:
    """The address of a folder's database: the same whenever it is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    return fresh_database(folder)


def on_server(folder: Path) -> dict[str, str]:
    """The environment that tells a program of a fresh database on the server; nothing where SQLite's default does."""
    return {"CHARSMITH_DATABASE_URL": fresh_database(folder)} if SERVER else {}


def damage(database: Database, blob_id: str, data: bytes) -> None:
    """What is stored of a blob, of one chunk, are other bytes."""
    with database.write() as connection:
        connection.execute(update(blob_chunks).where(blob_chunks.c.blob_id == blob_id).values(data=data))


def give_back(url: str) -> None:
    """A test has done with what `fresh_database` gave it, and has left the tables as they were."""
    if SERVER:
        _free.append(url)


def command(url: str, *statements: str) -> None:
    """Statements of the server's administrator, each by itself, in the database at the address."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


def _command(statement: str) -> None:
    command(_server().render_as_string(hide_password=False), statement)


def _server() -> URL:
    return make_url(SERVER)
