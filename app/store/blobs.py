"""Bytes of any size in chunks of 1 MiB, hashed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from app.store.database import Database


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes: complete, and readable by their id even before a row names them."""

    id: str
    bytes: int
    sha256: str


def write_blob(database: Database, pieces: Iterable[bytes]) -> Blob:
    """The stored bytes, which no row names yet: give them to `add_model`, or `remove_blob` them, or the sweep will."""
    raise NotImplementedError


def read_blob(database: Database, blob_id: str) -> Iterator[bytes]:
    """The bytes in pieces of at most 1 MiB. Raises NotFound, or Corrupted before the last piece is given out."""
    raise NotImplementedError


def remove_blob(database: Database, blob_id: str) -> None:
    """The bytes are gone, unless a row names them."""
    raise NotImplementedError


def sweep(database: Database, older_than: timedelta = timedelta(hours=1)) -> int:
    """How many blobs were removed: those deleted, and those no row has named for so long. Gives the space back."""
    raise NotImplementedError
