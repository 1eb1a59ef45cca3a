"""Uploaded texts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from app.store.database import Database
from app.store.pages import Page


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


class NotText(ValueError):
    """The bytes are not a text that can be trained on. The message says what is wrong, and at which byte."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


def add_corpus(database: Database, pieces: Iterable[bytes], name: str) -> tuple[Corpus, bool]:
    """The corpus of these bytes, and whether it is new. Raises NotText, InvalidName."""
    raise NotImplementedError


def get_corpus(database: Database, key: str) -> Corpus:
    """The corpus of an id, or the newest of a name. Raises NotFound."""
    raise NotImplementedError


def list_corpora(database: Database, limit: int, after: str | None = None) -> Page[Corpus]:
    raise NotImplementedError


def delete_corpus(database: Database, key: str) -> None:
    """Raises NotFound, or Conflict when a queued, running or paused job needs it."""
    raise NotImplementedError


def read_corpus(database: Database, corpus: Corpus) -> Iterator[bytes]:
    """The bytes in pieces (which may cut a character). Raises NotFound or Corrupted."""
    raise NotImplementedError
