"""Loaded models: kept while they are used, given up when they take too much memory, never while they write."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from app.generation.shelf import Decoded, Refused, Shelf
from app.store.blobs import write_blob
from app.store.database import Database
from app.store.opening import open_database
from models.engine import Engine
from models.rows import RowRequest
from tests.api.generating import DEADLINE_SECONDS, tiny_checkpoint
from tests.databases import fresh_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = open_database(fresh_database(tmp_path))
    yield made
    made.close()


class Loading:
    """A shelf, and a way to wait for its thread."""

    def __init__(self, database: Database, budget: int) -> None:
        self._woken = threading.Event()
        self.shelf = Shelf(database, "cpu", self._woken.set, budget)

    def load(self, blob_id: str) -> Engine | Refused:
        result = self.read(blob_id)
        return result if isinstance(result, Refused) else self.shelf.keep(blob_id, result)

    def busy(self, blob_id: str) -> Engine:
        """A model that is loaded and has a row."""
        engine = self.load(blob_id)
        assert isinstance(engine, Engine)
        engine.admit([1], RowRequest())
        return engine

    def read(self, blob_id: str) -> Decoded | Refused:
        self.shelf.load(blob_id)
        assert self._woken.wait(DEADLINE_SECONDS)
        self._woken.clear()
        [(read, result)] = self.shelf.loaded()
        assert read == blob_id
        return result


def assert_no_room(answer: object) -> None:
    assert isinstance(answer, Refused)
    assert answer.code == "model_too_large"


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


def test_one_model_is_always_kept_however_large_it_is(database: Database) -> None:
    first, second = store(database, 2)
    loading = Loading(database, 1)
    loading.load(first)
    loading.load(second)
    assert len(loading.shelf) == 1
    assert loading.shelf.get(second) is not None


def test_a_model_with_rows_is_never_given_up_and_what_does_not_fit_beside_it_is_refused(database: Database) -> None:
    first, second = store(database, 2)
    loading = Loading(database, int(1.5 * bytes_of_one(database, first)))
    writing = loading.busy(first)
    assert_no_room(loading.load(second))
    assert loading.shelf.get(first) is writing
    assert len(loading.shelf) == 1
    writing.evict(1)
    assert isinstance(loading.load(second), Engine)
    assert loading.shelf.get(first) is None


def test_a_model_that_is_lent_is_not_given_up_until_it_is_taken_back_as_often(database: Database) -> None:
    first, second = store(database, 2)
    loading = Loading(database, int(1.5 * bytes_of_one(database, first)))
    lent = loading.load(first)
    assert [loading.shelf.lend(first) is loading.shelf.lend(first)] == [True]
    loading.shelf.take_back(first)
    assert_no_room(loading.load(second))
    assert loading.shelf.get(first) is lent
    loading.shelf.take_back(first)
    assert isinstance(loading.load(second), Engine)
    assert loading.shelf.get(first) is None


def test_models_with_rows_stand_side_by_side_within_the_budget(database: Database) -> None:
    blobs = store(database, 2)
    loading = Loading(database, 10 * bytes_of_one(database, blobs[0]))
    for blob_id in blobs:
        loading.busy(blob_id)
    assert len(loading.shelf) == 2


def test_rows_that_began_while_a_model_was_read_keep_their_room(database: Database) -> None:
    first, second = store(database, 2)
    loading = Loading(database, int(1.5 * bytes_of_one(database, first)))
    writing = loading.load(first)
    decoded = loading.read(second)
    assert isinstance(writing, Engine)
    assert not isinstance(decoded, Refused)
    writing.admit([1], RowRequest())
    with pytest.raises(Refused, match="no room"):
        loading.shelf.keep(second, decoded)
    assert loading.shelf.get(first) is writing


def no_memory_for_tensors(_: bytes) -> None:
    torch.empty(2**60, dtype=torch.uint8)


def no_memory_for_bytes(_: bytes) -> None:
    raise MemoryError


def another_failure(_: bytes) -> None:
    raise RuntimeError("shapes do not match")


def no_room_for_compiled_code(*_: bytes) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (no_memory_for_tensors, "model_too_large"),
        (no_memory_for_bytes, "model_too_large"),
        (another_failure, "load_failed"),
        (no_room_for_compiled_code, "load_failed"),
    ],
)
def test_a_lack_of_memory_is_told_from_other_failures_and_the_next_model_is_loaded(
    database: Database, monkeypatch: pytest.MonkeyPatch, fail: Callable[[bytes], None], code: str
) -> None:
    loading, blob_id = Loading(database, 10**9), store(database, 1)[0]
    with monkeypatch.context() as patch:
        patch.setattr("app.generation.shelf.decode_checkpoint", fail)
        answer = loading.load(blob_id)
    assert isinstance(answer, Refused)
    assert answer.code == code
    assert isinstance(loading.load(blob_id), Engine)


def test_models_are_loaded_though_the_engine_could_not_be_compiled_beforehand(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generation.shelf.compile_first", no_room_for_compiled_code)
    assert isinstance(Loading(database, 10**9).load(store(database, 1)[0]), Engine)


def test_a_network_that_takes_more_memory_than_its_file_is_refused_before_it_does(database: Database) -> None:
    first, *_ = store(database, 1)
    many = tiny_checkpoint(characters="".join(map(chr, range(0x4E00, 0x4E00 + 5_000))), hidden_size=64)
    second = write_blob(database, [many]).id
    loading = Loading(database, int(1.5 * len(many)))
    loading.busy(first)
    assert_no_room(loading.read(second))


def test_what_cannot_be_loaded_is_refused_saying_why(database: Database) -> None:
    loading = Loading(database, 10**9)
    [no_model] = [write_blob(database, [b"no model at all"]).id]
    answers = [loading.load(no_model), loading.load("blob_nothing")]
    assert [answer.code for answer in answers if isinstance(answer, Refused)] == [
        "invalid_checkpoint",
        "checkpoint_gone",
    ]
    assert len(loading.shelf) == 0
