"""Bytes of any size in chunks of 1 MiB, hashed.

Knows nothing of what they mean. Each chunk is a short transaction of its own (a long one would starve heartbeats) and
memory stays at a few chunks both ways. Invariants: bytes are seen by others only from the transaction on that names
them in a row (`keep`); what is read to the end has the SHA-256 that was stored.
"""

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from app.fault_points import fault_point
from app.store.database import Database, let_others_write
from app.store.errors import Corrupted, NotFound, StoreError
from app.store.holding import held_row
from app.store.names import new_id
from app.store.schema import CHUNK_BYTES, blob_chunks, blobs

logger = logging.getLogger(__name__)

CHUNKS_PER_DELETE = 8
"""8 MiB per transaction: some tens of milliseconds of the write lock."""

READ_GRACE = timedelta(minutes=1)
"""For how long bytes replaced by retention can still be read: someone may be downloading them."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes: complete, and readable by their id even before a row names them."""

    id: str
    bytes: int
    sha256: str


def write_blob(database: Database, pieces: Iterable[bytes]) -> Blob:
    """The stored bytes, which no row names yet: `keep` or `remove_blob` them, or the sweep will take them.

    An exception of `pieces` leaves nothing behind.
    """
    blob_id, digest, size = new_id("blob"), hashlib.sha256(), 0
    with database.write() as connection:
        connection.execute(insert(blobs).values(id=blob_id, stage="writing", bytes=0, touched_at=database.now()))
    try:
        fault_point("blob.opened")
        for index, chunk in enumerate(_in_chunks(pieces)):
            digest.update(chunk)
            size += len(chunk)
            with database.write() as connection:
                _change(connection, blob_id, "writing", bytes=size, touched_at=database.now())
                connection.execute(insert(blob_chunks).values(blob_id=blob_id, chunk_index=index, data=chunk))
            fault_point("blob.chunk")
        sha256 = digest.hexdigest()
        with database.write() as connection:
            _change(connection, blob_id, "writing", stage="written", sha256=sha256, touched_at=database.now())
        fault_point("blob.written")
    except BaseException:
        discard_blob(database, blob_id)
        raise
    return Blob(blob_id, size, sha256)


def _in_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while view:
            taken = view[: CHUNK_BYTES - len(held)]
            held += taken
            view = view[len(taken) :]
            if len(held) == CHUNK_BYTES:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _change(connection: Connection, blob_id: str, at_stage: str, **values: object) -> None:
    at_that = update(blobs).where(blobs.c.id == blob_id, blobs.c.stage == at_stage)
    changed = connection.execute(at_that.values(**values))
    if changed.rowcount == 0:
        raise StoreError(f"{blob_id} was swept away before it was complete")


def keep(connection: Connection, blob: Blob) -> None:
    """From this transaction on a row names the bytes: the caller writes it in the same one."""
    _change(connection, blob.id, "written", stage="kept")


def drop(database: Database, connection: Connection, blob_ids: Collection[str]) -> None:
    """From this transaction on no row names the bytes. They go with `clean_up`, or with the next sweep."""
    changed = update(blobs).where(blobs.c.id.in_(blob_ids)).values(stage="dropped", touched_at=database.now())
    connection.execute(changed)


def blob_bytes(database: Database, blob_id: str) -> int:
    """How many they are. Raises NotFound."""
    with database.read() as connection:
        return int(_complete(connection, blob_id).bytes)


def _complete(connection: Connection, blob_id: str) -> Row[tuple[object, ...]]:
    row = connection.execute(select(blobs).where(blobs.c.id == blob_id, blobs.c.sha256.is_not(None))).first()
    if row is None:
        raise NotFound("blob", blob_id)
    return row


def read_blob(database: Database, blob_id: str) -> Iterator[bytes]:
    """The bytes in pieces of at most 1 MiB. Raises NotFound at once; Corrupted before the last piece is given out."""
    with database.read() as connection:
        row = _complete(connection, blob_id)
    return _verified(database, row)


def _verified(database: Database, row: Row[tuple[object, ...]]) -> Iterator[bytes]:
    digest, size, held = hashlib.sha256(), 0, b""
    for index in range(-(-row.bytes // CHUNK_BYTES)):
        if held:
            yield held
        held = _read_chunk(database, row.id, index)
        digest.update(held)
        size += len(held)
    if size != row.bytes or digest.hexdigest() != row.sha256:
        raise Corrupted(row.id)
    if held:
        yield held


def _read_chunk(database: Database, blob_id: str, index: int) -> bytes:
    wanted = select(blob_chunks.c.data).where(blob_chunks.c.blob_id == blob_id, blob_chunks.c.chunk_index == index)
    with database.read() as connection:
        data = connection.execute(wanted).scalar()
        if data is None and connection.execute(select(blobs.c.id).where(blobs.c.id == blob_id)).first() is None:
            raise NotFound("blob", blob_id)  # deleted while it was read
    if data is None:
        raise Corrupted(blob_id, f"chunk {index} is missing")
    return bytes(data)


def remove_blob(database: Database, blob_id: str) -> None:
    """The bytes are gone, unless a row names them."""
    unnamed = update(blobs).where(blobs.c.id == blob_id, blobs.c.stage != "kept").values(stage="dropped")
    with database.write() as connection:
        dropped = connection.execute(unnamed).rowcount > 0
    if dropped:
        fault_point("blob.dropped")
        while _delete_chunks(database, blob_id):
            fault_point("blob.chunks_removed")
            let_others_write()
        fault_point("blob.removed")


def discard_blob(database: Database, blob_id: str) -> None:
    """As `remove_blob`, on the way out of a failure, which it does not hide."""
    with best_effort():
        remove_blob(database, blob_id)


def clean_up(database: Database, blob_ids: Iterable[str]) -> None:
    """After the commit that dropped these bytes: they are gone and their space is given back, if that can be now."""
    with best_effort():
        for blob_id in blob_ids:
            remove_blob(database, blob_id)
        database.give_back_space()


@contextmanager
def best_effort() -> Iterator[None]:
    """For what the sweep does later if it fails now: a full disk or a lock then undoes nothing, so nobody is told that
    what was committed before failed, and tries it again."""
    try:
        yield
    except StoreError as error:
        logger.warning("bytes that no row names stay for the sweep: %s", error)


def _delete_chunks(database: Database, blob_id: str) -> bool:
    """Whether some chunks were removed, and there may be more; with none left the blob itself goes.

    Several may remove the same blob at once, as sweeps of several processes do: each step is one's alone.
    """
    this, of_blob = blobs.c.id == blob_id, blob_chunks.c.blob_id == blob_id
    some = select(blob_chunks.c.chunk_index).where(of_blob).limit(CHUNKS_PER_DELETE)
    with database.write() as connection:
        if connection.execute(held_row(select(blobs.c.id).where(this), "to change", blobs)).first() is None:
            return False
        removed = connection.execute(delete(blob_chunks).where(of_blob, blob_chunks.c.chunk_index.in_(some))).rowcount
        if not removed:
            connection.execute(delete(blobs).where(this))
        return removed > 0


def remove_dropped(database: Database, older_than: timedelta = READ_GRACE) -> int:
    """How many blobs were removed of those dropped so long ago."""
    return _remove(database, blobs.c.stage == "dropped", older_than)


def sweep(database: Database, older_than: timedelta = timedelta(hours=1)) -> int:
    """How many blobs were removed: the dropped, and those no row has named for so long. Gives the space back."""
    removed = remove_dropped(database, min(older_than, READ_GRACE))
    removed += _remove(database, blobs.c.stage.in_(("writing", "written")), older_than)
    database.give_back_space()
    return removed


def _remove(database: Database, condition: ColumnElement[bool], older_than: timedelta) -> int:
    with database.read() as connection:
        old = select(blobs.c.id).where(condition, blobs.c.touched_at < database.now() - older_than)
        blob_ids = connection.execute(old).scalars().all()
    for blob_id in blob_ids:
        fault_point("blob.swept")
        remove_blob(database, blob_id)
    return len(blob_ids)
