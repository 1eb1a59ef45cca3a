"""PostgreSQL as this store uses it: how connections are made, and what its errors mean.

Knows no tables. Invariants: a reading transaction sees one moment and cannot write; a writing one sees what was
committed before each of its statements, so whatever it decides on is a row that it has locked, or is decided behind one
of the locks of `database.Lock`; and what is committed is on the disk, whatever the server's default.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from app.store.database import new_engine
from app.store.driver_errors import BUSY_SECONDS, named_errors
from app.store.errors import DatabaseUnusable

DRIVER = "postgresql+psycopg"
OLDEST_VERSION = 130_000
"""As the server counts; 13 is the oldest that still had fixes when this was written."""

CONNECTIONS = {"pool_size": 4, "max_overflow": 12}
"""Of one process; a server gives 100 to all of them unless it is told otherwise."""

CONNECT_SECONDS = 5
ABANDONED_SECONDS = 10
"""A transaction whose process stands still for so long is ended by the server, or its locks would outlive its lease
(13 s). Ours take milliseconds."""

REACHING = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "charsmith",
    # A server that is gone without a word is noticed, and another one found, within a lease (13 s), not after the
    # system's two hours.
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 6_000,
    # Statements that a server keeps for a connection are lost where a pooler or a DISCARD comes between.
    "prepare_threshold": None,
}

SESSION = f"""
    SELECT set_config('lock_timeout', '{BUSY_SECONDS}s', false),
        set_config('idle_in_transaction_session_timeout', '{ABANDONED_SECONDS}s', false),
        CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END
"""


def is_postgres(url: URL) -> bool:
    """Whether the address is a PostgreSQL server's, by the driver that is used here or none."""
    return url.drivername in ("postgresql", DRIVER)


def postgres_engine(url: URL) -> Engine:
    """Connections to a database on a PostgreSQL server; see `check_server`."""
    given = {name: value for name, value in REACHING.items() if name not in url.query}
    # Before it is handed out a connection is tried: the server may have been started anew.
    engine = new_engine(url.set(drivername=DRIVER), connect_args=given, pool_pre_ping=True, **CONNECTIONS)

    @event.listens_for(engine, "do_connect")
    def connect_to_utf8(dialect: Any, _record: object, arguments: Any, options: Any) -> Any:
        connection = dialect.connect(*arguments, **options)
        # At once: of another encoding texts come as bytes, over which SQLAlchemy's own first questions fail.
        if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
            connection.close()
            raise DatabaseUnusable(
                f"the database {engine.url.database} has encoding {encoding}: make one with ENCODING 'UTF8'"
            )
        return connection

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute(SESSION)
        connection.commit()

    @event.listens_for(engine, "checkin")
    def forget_readers(connection: Any, _record: object) -> None:
        # After a reader SQLAlchemy asks for READ WRITE, which a server that takes no writes refuses in other words than
        # it refuses a write, and which a default of the server's would not hold against.
        if connection is not None and not connection.closed:
            connection.read_only = None

    return engine


def check_server(engine: Engine) -> None:
    """Return if the database can hold what is stored here. Raises DatabaseUnusable, DatabaseUnreachable."""
    look = text("SELECT current_setting('server_version_num')::int")
    try:
        with named_errors(engine.dialect.loaded_dbapi), engine.connect() as connection:
            version = connection.execute(look).scalar_one()
    except DBAPIError as error:  # no such database, say, or no right to enter it
        raise DatabaseUnusable(f"cannot open the database {engine.url.database}: {error.orig}") from error
    if version < OLDEST_VERSION:
        raise DatabaseUnusable(f"PostgreSQL {OLDEST_VERSION // 10_000} or newer is needed, not {version // 10_000}")


def server_clock(engine: Engine) -> Callable[[], datetime]:
    """The server's time, as this process's clock tells it from now on: machines whose clocks differ share one."""
    with named_errors(engine.dialect.loaded_dbapi), engine.connect() as connection:
        ahead = connection.execute(text("SELECT clock_timestamp()")).scalar_one() - datetime.now(UTC)
    return lambda: datetime.now(UTC) + ahead
