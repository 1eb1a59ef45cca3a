"""Readers that stay: the write-ahead log cannot begin anew under one, and must not grow for ever all the same."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.store import blobs, corpora
from app.store.blobs import remove_blob, write_blob
from app.store.database import LOG_BYTES, Database
from app.store.sqlite_engine import newest_sqlite
from app.watch import LOG_EVERY, Watch
from tests.databases import sqlite_only

pytestmark = sqlite_only

MIB = 1024 * 1024


def log_bytes(scene: Any) -> int:
    log = Path(f"{scene.url.removeprefix('sqlite:///')}-wal")
    return log.stat().st_size if log.exists() else 0


def churn(database: Database, mib: int) -> None:
    """Write and delete again."""
    for _ in range(mib // 8):
        remove_blob(database, write_blob(database, [bytes(8 * MIB)]).id)


@contextmanager
def pinned(scene: Any) -> Iterator[None]:
    """Within, somebody else's program has a reading transaction open."""
    with closing(newest_sqlite().connect(scene.url.removeprefix("sqlite:///"), isolation_level=None)) as foreign:
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM jobs").fetchone()
        yield
        foreign.execute("ROLLBACK")


def test_a_download_that_stands_still_keeps_no_reading_transaction_open(scene: Any) -> None:
    corpus = scene.corpus("large", "large " * MIB)
    reading = corpora.read_corpus(scene.database, corpus)
    beginning = next(reading)
    churn(scene.database, 96)
    assert log_bytes(scene) < 16 * MIB
    assert beginning + b"".join(reading) == b"large " * MIB


def test_readers_without_a_gap_between_them_do_not_keep_the_log_growing(scene: Any) -> None:
    done = threading.Event()
    watch = Watch(scene.database, 13)

    def read() -> None:
        while not done.is_set():
            with scene.database.read() as connection:
                connection.execute(blobs.blobs.select()).all()
                done.wait(0.005)

    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    try:
        largest = 0
        for _ in range(8):
            churn(scene.database, 32)
            largest = max(largest, log_bytes(scene))
            for _ in range(LOG_EVERY):
                watch.look()
    finally:
        done.set()
        for reader in readers:
            reader.join(30)
    assert largest < LOG_BYTES + 64 * MIB


def test_a_log_that_grew_under_a_reader_of_somebody_else_is_told_and_cut_when_the_reader_is_gone(
    scene: Any, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch(scene.database, 13)
    with pinned(scene):
        churn(scene.database, 72)
        assert log_bytes(scene) > LOG_BYTES
        watch.look()
        assert "write-ahead log" in caplog.text
        assert log_bytes(scene) > LOG_BYTES
    for _ in range(LOG_EVERY):
        watch.look()
    assert log_bytes(scene) == 0
