"""Learning that a job has news without asking for it again and again.

Knows what PostgreSQL's NOTIFY and SQLite's count of commits are, nothing of who waits. Invariant: a notice may come in
vain, and none is lost: news are in the tables before they are told, and `Listener` says so when it may have missed one.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection, func, select

from app.store.database import Commits, Database

CHANNEL = "charsmith_jobs"
LOOK_SECONDS = 0.5
"""Between two looks at SQLite's count of commits, of two microseconds each; so often at most anybody is woken."""

Told = frozenset[str] | None
"""The ids of jobs that have news; None: any job may."""


class Listener(Protocol):
    def wait(self, seconds: float) -> Told:
        """What was told since the last call, waited for at most so long. Raises StoreError."""
        ...


def tell(connection: Connection, job_id: str | None) -> None:
    """When this transaction is committed, whoever listens learns that the job has news; None: that any may have."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, job_id or "")))


@contextmanager
def listening(database: Database) -> Iterator[Listener]:
    """A listener, for one thread, with a connection of its own. Raises StoreError."""
    if (commits := database.commits()) is not None:
        with closing(commits):
            yield _OfCommits(commits)
    else:
        with database.lasting_connection() as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            yield _OfNotify(database, connection)


class _OfCommits:
    """SQLite: whatever is committed may be news of any job."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._seen: int | None = None
        self._began = False

    def wait(self, seconds: float) -> Told:
        if self._began:
            time.sleep(min(LOOK_SECONDS, seconds))
        before, self._seen = self._seen, self._commits.count()
        is_same = self._began and self._seen is not None and self._seen == before
        self._began = True
        return frozenset() if is_same else None


class _OfNotify:
    """PostgreSQL: the channel tells the ids."""

    def __init__(self, database: Database, connection: Any) -> None:
        self._database = database
        self._connection = connection
        self._began = False

    def wait(self, seconds: float) -> Told:
        if not self._began:  # what was told before anybody listened
            self._began = True
            return None
        # Named here: who holds the listener on a stack of contexts gets its errors past `lasting_connection`.
        with (
            self._database.driver_errors(),
            closing(self._connection.notifies(timeout=seconds, stop_after=1)) as notices,
        ):
            told = frozenset(notice.payload for notice in notices)
        return None if "" in told else told
