"""Work for a power loss to hit: `python -m tests.faults.power_loss_work FOLDER LEDGER JOURNAL SYNCHRONOUS STEPS`.

One process does to a database in FOLDER what a service and a worker do, by the store's own code. After every
transaction that has returned it writes a line to LEDGER: the state of the whole database then, in a number. A
second thread copies the write-ahead log into the database all the time. Invariant: one thread writes, so states come
one after another, and a database that was recovered must be in the last acknowledged one, or the next.
"""

import hashlib
import json
import logging
import os
import random
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from app.store import blobs, claims, corpora, jobs, sqlite_engine, trained_models, workers
from app.store.database import Database
from app.store.job_state import JobStatus
from app.store.opening import open_database
from app.store.secret_keys import secret_key
from app.store.sqlite_engine import newest_sqlite

SEED = 7
CHECKPOINT_PAGES = 40
"""So often the log is copied by whoever commits; by default at 1,000."""
TWO_CHUNKS = 1024 * 1024 + 10_000


def sqlite_for(journal: str) -> ModuleType:
    """The SQLite in use; for the journal `delete` it says that it is one that may not use a write-ahead log."""
    module = newest_sqlite()
    if journal == "wal":
        return module
    names = {name: getattr(module, name) for name in dir(module) if not name.startswith("__")}
    return SimpleNamespace(**names | {"sqlite_version_info": (3, 51, 2), "sqlite_version": "3.51.2"})  # type: ignore[return-value]


def state_of(connection: sqlite3.Connection) -> str:
    """A number of everything that is stored: all rows of all tables, bytes included."""
    digest = hashlib.sha256()
    named = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%' ORDER BY name"
    for (table,) in connection.execute(named).fetchall():
        digest.update(table.encode())
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid"):
            for value in row:
                digest.update(b"\0" + value if isinstance(value, bytes) else repr(value).encode())
    return digest.hexdigest()


class Ledger:
    """Writes down what was acknowledged, so that it is a call like those that write to the database."""

    def __init__(self, path: Path, database_path: Path, module: ModuleType) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._database_path, self._module = database_path, module

    def acknowledge(self, what: str) -> None:
        with closing(self._module.connect(self._database_path, isolation_level=None)) as connection:
            connection.execute("PRAGMA busy_timeout=15000")
            connection.execute("BEGIN")
            line = json.dumps({"state": state_of(connection), "what": what})
            connection.execute("COMMIT")
        os.write(self._descriptor, line.encode() + b"\n")


class Acknowledged(Database):
    """A database of which every transaction that returned is acknowledged."""

    def __init__(self, opened: Database, clock: Callable[[], datetime], ledger: Ledger) -> None:
        super().__init__(opened._engine, clock)
        self._ledger = ledger

    @contextmanager
    def write(self) -> Iterator[Any]:
        with super().write() as connection:
            yield connection
        self._ledger.acknowledge("transaction")


class Clock:
    """Goes on by half a minute whenever it is looked at, so that what waits for a while need not."""

    def __init__(self) -> None:
        self._now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self._now += timedelta(seconds=30)
        return self._now


def opened(path: Path, ledger: Ledger, journal: str, clock: Clock) -> Acknowledged:
    with closing(open_database(f"sqlite:///{path}", sqlite_module=sqlite_for(journal))):
        ledger.acknowledge("opened")
    store = Acknowledged(open_database(f"sqlite:///{path}", sqlite_module=sqlite_for(journal)), clock, ledger)
    with store.read() as connection:  # its pool's only connection, which it hands out again
        connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    return store


def first_session(database: Database, draw: random.Random, steps: int) -> None:
    """Uploads, and a job that is trained for a while and given back."""
    text = "".join(draw.choices("abcdefgh \n", k=TWO_CHUNKS)).encode()
    large = corpora.add_corpus(database, [text], "large").corpus
    small = corpora.add_corpus(database, [text[:3000]], "small").corpus
    corpora.add_corpus(database, [text[:3000]], "again")
    secret_key(database, "states")
    for name, corpus in (("first", large), ("second", small), ("third", small)):
        jobs.enqueue(database, name=name, corpus_id=corpus.id, model={"cell": "gru"}, training={"steps": 99})
    workers.announce(database, "worker-1", "cpu")
    claim = claims.claim_next(database, "worker-1")
    assert claim is not None
    claims.record_started(database, claim, {"steps": 99})
    for step in range(1, steps // 3 + 2):
        train(database, claim, step, draw)
    jobs.pause_job(database, "second")
    jobs.resume_job(database, "second")
    claims.release(database, claim)


def second_session(database: Database, draw: random.Random, steps: int) -> None:
    """The job goes on to its end; another is given up; what nobody needs is deleted, and its space given back."""
    claim = claims.claim_next(database, "worker-2")
    assert claim is not None
    assert claims.read_resume_point(database, claim)
    claims.drop_after(database, claim, 3)
    for step in range(4, steps + 1):
        train(database, claim, step, draw)
    claims.finish(database, claim, JobStatus.SUCCEEDED)
    for name in ("second", "third"):
        jobs.cancel_job(database, name)
        jobs.delete_job(database, name)
    corpora.delete_corpus(database, "large")
    trained_models.delete_model(database, "first")
    blobs.sweep(database, timedelta())


def train(database: Database, claim: claims.Claim, step: int, draw: random.Random) -> None:
    """A step, with all that is told of one."""
    workers.announce(database, "worker-1", "cpu", claim.job.id)
    claims.renew(database, claim)
    claims.record_progress(database, claim, {"step": step, "train_loss": 3.0 - step / 10, "seconds": 1.0 * step})
    claims.record_evaluation(database, claim, step, 3.1 - step / 10, best=True)
    claims.record_sample(database, claim, step, "to be or not to be")
    claims.record_saved(
        database,
        claim,
        step=step,
        train_loss=3.0 - step / 10,
        val_loss=3.1 - step / 10 if step != 7 else 0.5,
        checkpoint=draw.randbytes(20_000),
        info={"vocabulary_size": 10, "parameters": 1000},
        resume_point=draw.randbytes(TWO_CHUNKS if step in (2, 8) else 30_000),
    )


def copy_the_log(path: Path, stop: threading.Event, prepare: Callable[[sqlite3.Connection], None]) -> None:
    """Checkpoints of every kind, one after the other, until told to stop."""
    draw = random.Random(SEED)
    with closing(newest_sqlite().connect(path, isolation_level=None)) as connection:
        prepare(connection)
        while not stop.wait(0.02):
            connection.execute(f"PRAGMA wal_checkpoint({draw.choice(('PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'))})")


def main(folder: Path, acknowledgements: Path, journal: str, synchronous: str, steps: int) -> None:
    logging.disable()
    set_pragmas, path, clock = sqlite_engine._set_pragmas, folder / "charsmith.db", Clock()

    def prepare(connection: Any) -> None:
        connection.execute("PRAGMA busy_timeout=15000")
        if synchronous != "as-it-is":
            connection.execute(f"PRAGMA synchronous={synchronous}")

    def set_ours(connection: Any, *more: Any) -> None:
        set_pragmas(connection, *more)
        prepare(connection)

    sqlite_engine._set_pragmas = set_ours
    ledger, draw = Ledger(acknowledgements, path, newest_sqlite()), random.Random(SEED)
    for session in (first_session, second_session):
        store, stop = opened(path, ledger, journal, clock), threading.Event()
        copier = threading.Thread(target=copy_the_log, args=(path, stop, prepare), daemon=True)
        if journal == "wal":
            copier.start()
        session(store, draw, steps)
        stop.set()
        if journal == "wal":
            copier.join()
        store.close()
    ledger.acknowledge("closed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
