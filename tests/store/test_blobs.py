"""Bytes in chunks: whole or invisible, verified, and gone when deleted."""

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, func, literal, select, update

from app.store import corpora
from app.store.blobs import Blob, keep, read_blob, remove_blob, sweep, write_blob
from app.store.errors import Corrupted, NotFound, StoreError
from app.store.opening import open_database
from app.store.schema import CHUNK_BYTES, blob_chunks, blobs
from tests.databases import sqlite_only


def count(scene: Any, table: Any = blob_chunks) -> int:
    with scene.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def sample(size: int) -> bytes:
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("piece", [1000 * 1000, 8 * CHUNK_BYTES])
def test_bytes_come_back_as_they_were(scene: Any, size: int, piece: int) -> None:
    data = sample(size)
    blob = write_blob(scene.database, (data[i : i + piece] for i in range(0, size, piece)))
    assert blob == Blob(blob.id, size, hashlib.sha256(data).hexdigest())
    read = list(read_blob(scene.database, blob.id))
    assert b"".join(read) == data
    assert all(0 < len(part) <= CHUNK_BYTES for part in read)
    assert count(scene) == -(-size // CHUNK_BYTES)


@sqlite_only
def test_bytes_of_any_size_are_kept_where_one_value_must_be_small(scene: Any) -> None:
    """SQLite holds a value of a gigabyte at most; here two megabytes stand for it."""
    database = open_database(scene.url, sqlite_module=sqlite3)  # whose limits can be set

    @event.listens_for(database._engine, "checkout")
    def limit(connection: Any, *_: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * CHUNK_BYTES)

    data = sample(5 * CHUNK_BYTES + 10)
    with pytest.raises(StoreError, match="too big"), database.write() as connection:
        connection.execute(select(literal(data)))
    blob = write_blob(database, [data])
    assert b"".join(read_blob(database, blob.id)) == data
    database.close()


def test_an_upload_that_breaks_off_leaves_nothing(scene: Any) -> None:
    def breaking() -> Iterator[bytes]:
        yield sample(CHUNK_BYTES * 2)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_blob(scene.database, breaking())
    assert (count(scene), count(scene, blobs)) == (0, 0)


@pytest.mark.parametrize("damage", ["flip", "shorten", "lose", "swap"])
def test_damaged_bytes_are_noticed_before_the_last_piece_is_given_out(scene: Any, damage: str) -> None:
    blob = write_blob(scene.database, [sample(CHUNK_BYTES), b"x" * CHUNK_BYTES, b"end"])
    first = blob_chunks.c.chunk_index == 0
    with scene.database.write() as connection:
        if damage == "flip":
            connection.execute(update(blob_chunks).where(first).values(data=b"!" + sample(CHUNK_BYTES)[1:]))
        elif damage == "shorten":
            connection.execute(update(blob_chunks).where(first).values(data=sample(CHUNK_BYTES - 1)))
        elif damage == "lose":
            connection.execute(delete(blob_chunks).where(first))
        else:
            connection.execute(update(blob_chunks).where(blob_chunks.c.chunk_index == 1).values(data=b"y"))
    seen = []
    with pytest.raises(Corrupted):
        seen.extend(read_blob(scene.database, blob.id))
    assert b"end" not in seen


def test_reading_what_is_not_there_or_not_complete_is_refused_at_once(scene: Any) -> None:
    with pytest.raises(NotFound):
        read_blob(scene.database, "blob_nowhere")

    def looking() -> Iterator[bytes]:
        yield sample(CHUNK_BYTES)
        with scene.database.read() as connection:
            blob_id = connection.execute(select(blobs.c.id)).scalar_one()
        with pytest.raises(NotFound):
            read_blob(scene.database, blob_id)

    write_blob(scene.database, looking())


def test_bytes_deleted_while_they_are_read_end_the_reading(scene: Any) -> None:
    corpus = scene.corpus(text="ab" * CHUNK_BYTES)
    reading = corpora.read_corpus(scene.database, corpus)
    next(reading)
    corpora.delete_corpus(scene.database, corpus.id)
    with pytest.raises(NotFound):
        list(reading)


def test_the_sweep_takes_what_no_row_has_named_for_long_and_nothing_else(scene: Any) -> None:
    corpus = scene.corpus()
    old = write_blob(scene.database, [b"old"])
    scene.clock.jump(minutes=61)
    young = write_blob(scene.database, [b"young"])
    assert sweep(scene.database, timedelta(hours=1)) == 1
    with pytest.raises(NotFound):
        read_blob(scene.database, old.id)
    assert list(read_blob(scene.database, young.id)) == [b"young"]
    assert b"".join(corpora.read_corpus(scene.database, corpus)).startswith(b"Now is")


def test_an_upload_that_goes_on_for_hours_is_not_swept(scene: Any) -> None:
    def slow() -> Iterator[bytes]:
        for _ in range(5):
            yield sample(CHUNK_BYTES)
            scene.clock.jump(minutes=50)
            assert sweep(scene.database, timedelta(hours=1)) == 0

    assert write_blob(scene.database, slow()).bytes == 5 * CHUNK_BYTES


def test_what_was_swept_away_cannot_be_completed_or_named(scene: Any) -> None:
    def stalled() -> Iterator[bytes]:
        yield sample(CHUNK_BYTES)
        scene.clock.jump(hours=3)
        assert sweep(scene.database, timedelta(hours=1)) == 1
        yield sample(CHUNK_BYTES)

    with pytest.raises(StoreError, match="swept away"):
        write_blob(scene.database, stalled())
    blob = write_blob(scene.database, [b"x"])
    remove_blob(scene.database, blob.id)
    with pytest.raises(StoreError, match="swept away"), scene.database.write() as connection:
        keep(connection, blob)
    assert (count(scene), count(scene, blobs)) == (0, 0)


def test_named_bytes_cannot_be_removed(scene: Any) -> None:
    corpus = scene.corpus()
    remove_blob(scene.database, corpus.blob_id)
    assert b"".join(corpora.read_corpus(scene.database, corpus))


@sqlite_only
def test_deleting_gives_the_space_back(scene: Any, tmp_path: Path) -> None:
    files = [tmp_path / "charsmith.db", tmp_path / "charsmith.db-wal"]
    before = files[0].stat().st_size
    stays = scene.corpus("stays", "stays " * CHUNK_BYTES)
    goes = scene.corpus("goes", "goes " * CHUNK_BYTES * 2)
    scene.corpus("after", "after " * 1000)
    full = files[0].stat().st_size
    assert full >= goes.bytes + stays.bytes - 5 * CHUNK_BYTES  # the last few may still be in the log
    corpora.delete_corpus(scene.database, "goes")
    assert files[0].stat().st_size <= before + stays.bytes + 2 * CHUNK_BYTES
    assert files[1].stat().st_size <= 64 * CHUNK_BYTES
    assert b"".join(corpora.read_corpus(scene.database, stays)) == b"stays " * CHUNK_BYTES
    with scene.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_others_write_while_a_large_blob_comes_and_goes(scene: Any) -> None:
    done, waits = threading.Event(), []

    def beat() -> None:
        while not done.is_set():
            with scene.database.write() as connection:
                connection.execute(update(blobs).values(touched_at=scene.database.now()))
            waits.append(1)

    beating = threading.Thread(target=beat)
    beating.start()
    scene.corpus("large", "large " * CHUNK_BYTES * 5)
    corpora.delete_corpus(scene.database, "large")
    done.set()
    beating.join(30)
    assert len(waits) >= 10
