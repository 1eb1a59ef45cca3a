"""Opening the database, and the two kinds of transaction on it. Differences between SQLite and PostgreSQL live here alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType

from sqlalchemy import Connection


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Database:
    dialect: str

    def now(self) -> datetime:
        raise NotImplementedError

    @contextmanager
    def read(self) -> Iterator[Connection]:
        raise NotImplementedError
        yield

    @contextmanager
    def write(self) -> Iterator[Connection]:
        raise NotImplementedError
        yield

    def close(self) -> None:
        raise NotImplementedError


def open_database(
    url: str, *, clock: Callable[[], datetime] = _utc_now, sqlite_module: ModuleType | None = None
) -> Database:
    raise NotImplementedError
