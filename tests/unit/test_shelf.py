"""Loaded models: kept while they are used, given up when they take too much memory, never while they write."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.generation.shelf import Refused, Shelf
from app.store.blobs import write_blob
from app.store.database import Database, open_database
from models.engine import Engine, RowRequest
from tests.api.generating import DEADLINE_SECONDS, tiny_checkpoint


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = open_database(f"sqlite:///{tmp_path}/charsmith.db")
    yield made
    made.close()


class Loading:
    """A shelf, and a way to wait for its thread."""

    def __init__(self, database: Database, budget: int) -> None:
        self._woken = threading.Event()
        self.shelf = Shelf(database, "cpu", self._woken.set, budget)

    def load(self, blob_id: str) -> Engine | Refused:
        self.shelf.load(blob_id)
        assert self._woken.wait(DEADLINE_SECONDS)
        self._woken.clear()
        [(read, result)] = self.shelf.loaded()
        assert read == blob_id
        return result if isinstance(result, Refused) else self.shelf.keep(blob_id, result)


def store(database: Database, number: int) -> list[str]:
    return [write_blob(database, [tiny_checkpoint()]).id for _ in range(number)]


def bytes_of_one(database: Database, blob_id: str) -> int:
    loading = Loading(database, 10**9)
    loading.load(blob_id)
    return loading.shelf.bytes


def test_the_least_recently_used_model_makes_room(database: Database) -> None:
    first, second, third = store(database, 3)
    loading = Loading(database, 2 * bytes_of_one(database, first))
    loading.load(first)
    loading.load(second)
    assert loading.shelf.get(first) is not None  # from now on the second is the older one
    loading.load(third)
    assert loading.shelf.get(second) is None
    assert loading.shelf.get(first) is not None
    assert loading.shelf.get(third) is not None


def test_a_model_with_rows_is_never_given_up_and_one_model_is_always_kept(database: Database) -> None:
    first, second, third = store(database, 3)
    loading = Loading(database, 1)
    writing = loading.load(first)
    assert isinstance(writing, Engine)
    writing.admit(1, RowRequest())
    loading.load(second)
    assert len(loading.shelf) == 2
    writing.evict(1)
    loading.load(third)
    assert len(loading.shelf) == 1
    assert loading.shelf.get(third) is not None


def test_what_cannot_be_loaded_is_refused_saying_why(database: Database) -> None:
    loading = Loading(database, 10**9)
    [no_model] = [write_blob(database, [b"no model at all"]).id]
    answers = [loading.load(no_model), loading.load("blob_nothing")]
    assert [answer.code for answer in answers if isinstance(answer, Refused)] == [
        "invalid_checkpoint",
        "checkpoint_gone",
    ]
    assert len(loading.shelf) == 0
