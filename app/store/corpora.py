"""Uploaded texts: immutable, each stored once.

Knows nothing of training. Invariant: a corpus that is listed is complete, valid text, and there is one per SHA-256.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from app.fault_points import fault_point
from app.store.blobs import Blob, clean_up, discard_blob, drop, keep, read_blob, write_blob
from app.store.database import Database, insert_unless_there
from app.store.errors import Conflict, NotFound
from app.store.holding import Hold, Lock, held_row, take
from app.store.names import check_name, is_id, is_name, new_id
from app.store.pages import Page, read_page
from app.store.rows import record
from app.store.schema import LIVE, corpora, jobs, vocabularies
from app.store.text_check import NotText, TextCheck

__all__ = ["Added", "Corpus", "NotText", "add_corpus", "delete_corpus", "get_corpus", "list_corpora", "read_corpus"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """An uploaded text, immutable, known by its SHA-256 (of the bytes stored: a UTF-8 byte order mark is dropped)."""

    id: str
    name: str
    bytes: int
    characters: int
    vocabulary_size: int
    sha256: str
    preview: str
    created_at: datetime
    blob_id: str


class Added(NamedTuple):
    """What became of an upload."""

    corpus: Corpus
    is_new: bool
    """False: these bytes were here already, and the corpus is the first one, with its name."""
    mark_dropped: bool
    """The bytes began with UTF-8's byte order mark, which is not kept."""


def add_corpus(database: Database, pieces: Iterable[bytes], name: str) -> Added:
    """The corpus of these bytes, new or the one that has them already.

    Raises NotText, InvalidName; then, or when `pieces` raises, nothing is stored.
    """
    check_name(name)
    check = TextCheck()
    blob = write_blob(database, check.checked(pieces))
    try:
        corpus = _name_blob(database, blob, check, name)
    except BaseException:
        discard_blob(database, blob.id)
        raise
    fault_point("corpus.named")
    is_new = corpus.blob_id == blob.id
    if not is_new:
        clean_up(database, [blob.id])
    return Added(corpus, is_new, check.mark_dropped)


def _name_blob(database: Database, blob: Blob, check: TextCheck, name: str) -> Corpus:
    values: dict[str, Any] = {
        "id": new_id("corpus"),
        "name": name,
        "bytes": blob.bytes,
        "characters": check.characters,
        "vocabulary_size": len(check.different),
        "sha256": blob.sha256,
        "preview": check.preview,
        "created_at": database.now(),
        "blob_id": blob.id,
    }
    with database.write() as connection:
        take(connection, Lock.CORPORA)  # they are seen in the order of their numbers, which pages go by
        # Under PostgreSQL the one that is there already may be deleted before it is read: then the insert succeeds.
        while True:
            if insert_unless_there(connection, corpora, "sha256", **values):
                keep(connection, blob)
                of_text = {"corpus_id": values["id"], "normalization": "none", "characters": check.different.in_order()}
                connection.execute(insert(vocabularies).values(of_text))
            row = connection.execute(select(corpora).where(corpora.c.sha256 == blob.sha256)).first()
            if row is not None:
                break
        fault_point("corpus.naming")
        return record(Corpus, row)


def get_corpus(database: Database, key: str) -> Corpus:
    """The corpus of an id, or the newest of a name. Raises NotFound."""
    with database.read() as connection:
        return find_corpus(connection, key)


def find_corpus(connection: Connection, key: str, *, hold: Hold | None = None) -> Corpus:
    """As `get_corpus`, within a transaction, until whose end the row is held if that is wanted."""
    row = None
    if is_id(key) or is_name(key):
        wanted: ColumnElement[bool] = corpora.c.id == key if is_id(key) else corpora.c.name == key
        query = select(corpora).where(wanted).order_by(corpora.c.sequence.desc()).limit(1)
        row = connection.execute(held_row(query, hold, corpora)).first()
    if row is None:
        raise NotFound("corpus", key)
    return record(Corpus, row)


def list_corpora(
    database: Database, limit: int, after: str | None = None, *, oldest_first: bool = False
) -> Page[Corpus]:
    """Newest first unless it is said otherwise, those that follow the corpus with the id `after`.

    Raises InvalidCursor.
    """
    with database.read() as connection:
        return read_page(connection, Corpus, select(corpora), corpora, limit, after, oldest_first=oldest_first)


def delete_corpus(database: Database, key: str) -> None:
    """Gone, and its space given back. Raises NotFound; Conflict when a queued, running or paused job needs it."""
    with database.write() as connection:
        corpus = find_corpus(connection, key, hold="to change")
        needing = select(jobs.c.id, jobs.c.status).where(jobs.c.corpus_id == corpus.id, jobs.c.status.in_(LIVE))
        job = connection.execute(needing.limit(1)).first()
        if job is not None:
            raise Conflict(f"job {job.id} ({job.status}) needs the corpus: cancel it first")
        connection.execute(delete(corpora).where(corpora.c.id == corpus.id))
        drop(database, connection, [corpus.blob_id])
        fault_point("corpus.deleting")
    fault_point("corpus.deleted")
    clean_up(database, [corpus.blob_id])


def read_corpus(database: Database, corpus: Corpus) -> Iterator[bytes]:
    """The bytes in pieces (which may cut a character). Raises NotFound or, before the last piece, Corrupted."""
    return read_blob(database, corpus.blob_id)
