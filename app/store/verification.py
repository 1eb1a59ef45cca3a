"""Whether a database is whole: every page, every reference, every stored byte.

Knows no files but by their databases. Invariant: it changes nothing. What is known to be damaged already, a quarantined
checkpoint, is told and not held against the database: nobody is given it any more.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from app.store.blobs import read_blob
from app.store.database import Database
from app.store.errors import Corrupted, Damaged, DatabaseFailed, DatabaseUnusable, NotFound
from app.store.migrate import known_revision
from app.store.schema import blobs, checkpoints, corpora, jobs, models
from app.store.sqlite_files import look_at, sqlite_file

MOST_PROBLEMS = 5
"""So many are told: a broken disk has thousands."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a whole database holds."""

    revision: str
    corpora: int
    jobs: int
    models: int
    checkpoints: int
    stored_bytes: int
    quarantined: tuple[str, ...]
    """Checkpoints that are known to be damaged."""

    def __str__(self) -> str:
        counts = ("corpora", "jobs", "models", "checkpoints")
        told = ", ".join(f"{name} {getattr(self, name)}" for name in counts)
        damaged = f"; known to be damaged: {', '.join(self.quarantined)}" if self.quarantined else ""
        return f"{told}; {self.stored_bytes:,} bytes of texts and weights verified{damaged}"


def check_ours(database: Database) -> str:
    """The schema's version. Raises DatabaseUnusable or SchemaTooNew."""
    with database.read() as connection:
        revision = known_revision(connection)
    if revision is None:
        raise DatabaseUnusable("there is nothing in it")
    return revision


def verify(database: Database, name: object) -> Contents:
    """What the database holds, all of it read. Raises DatabaseUnusable, SchemaTooNew, or Damaged with its `name`.

    Of a database that others write to, what was deleted meanwhile is passed over.
    """
    revision = check_ours(database)
    try:
        with database.read() as connection:
            problems = [*_broken_pages(connection)] or [*_dangling(connection)]
            kept = owners_of_blobs(connection)
            contents = contents_of(connection, revision)
        problems += [problem for blob_id, owner in kept.items() for problem in _damage(database, blob_id, owner)]
    except DatabaseFailed as error:
        raise Damaged(name, [str(error)]) from error
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise Damaged(name, problems[:MOST_PROBLEMS] + more)
    return contents


def verify_database(url: str) -> Contents:
    """What the SQLite database at `url` holds, while others use it: see `verify`."""
    path = sqlite_file(url)
    if not path.is_file():
        raise DatabaseUnusable(f"there is no database {path}")
    with closing(look_at(path)) as database:
        return verify(database, path)


def _broken_pages(connection: Connection) -> Iterator[str]:
    for (problem,) in connection.exec_driver_sql("PRAGMA integrity_check").all():
        if problem != "ok":
            yield str(problem)


def _dangling(connection: Connection) -> Iterator[str]:
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        yield f"row {row} of {table} names something that {parent} does not have"


def owners_of_blobs(connection: Connection) -> dict[str, str]:
    """The blobs that rows name, and whose they are; but for those of quarantined checkpoints."""
    owners = {
        "corpus": select(corpora.c.blob_id, corpora.c.id),
        "checkpoint": select(checkpoints.c.blob_id, checkpoints.c.id).where(~checkpoints.c.corrupted),
        "resume point of job": select(jobs.c.resume_blob_id, jobs.c.id).where(jobs.c.resume_blob_id.is_not(None)),
    }
    return {
        blob_id: f"{kind} {owner}" for kind, query in owners.items() for blob_id, owner in connection.execute(query)
    }


def _damage(database: Database, blob_id: str, owner: str) -> Iterator[str]:
    try:
        for _ in read_blob(database, blob_id):
            pass
    except (Corrupted, NotFound) as error:
        with database.read() as connection:  # is it named still, or deleted meanwhile?
            if blob_id in owners_of_blobs(connection):
                yield f"{owner}: {error}"


def contents_of(connection: Connection, revision: str) -> Contents:
    """What its tables tell; that it is whole is for the caller to know."""
    counts = {
        table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
        for table in (corpora, jobs, models, checkpoints)
    }
    stored = connection.execute(select(func.sum(blobs.c.bytes)).where(blobs.c.stage == "kept")).scalar() or 0
    damaged = connection.execute(select(checkpoints.c.id).where(checkpoints.c.corrupted)).scalars().all()
    return Contents(revision, **counts, stored_bytes=int(stored), quarantined=tuple(damaged))
