"""A worker's container tells whether its worker lives."""

from collections.abc import Callable

import pytest

from app.store.database import Database
from app.store.workers import announce
from worker.health import new_worker_id, worker_beats

HOST = "container"


def beats_of(database: Database, worker_id: str, *, after: int) -> Callable[[float], None]:
    """A sleep in which that worker announces itself, once, at the wait with that number."""
    waits = iter(range(1_000))

    def sleep(_seconds: float) -> None:
        if next(waits) == after:
            announce(database, worker_id, "cpu")

    return sleep


@pytest.mark.parametrize("after", [0, 20])
def test_a_worker_whose_beats_move_lives(database: Database, after: int) -> None:
    announce(database, f"{HOST}-0a", "cpu")
    assert worker_beats(database, HOST, sleep=beats_of(database, f"{HOST}-0a", after=after))


def test_a_worker_that_first_announces_itself_while_we_look_lives(database: Database) -> None:
    assert worker_beats(database, HOST, sleep=beats_of(database, f"{HOST}-0a", after=1))


def test_a_worker_whose_beats_stand_still_does_not(database: Database) -> None:
    announce(database, f"{HOST}-0a", "cpu")
    assert not worker_beats(database, HOST, sleep=lambda _: None)


def test_a_worker_of_another_machine_does_not_count(database: Database) -> None:
    assert not worker_beats(database, HOST, sleep=beats_of(database, f"{HOST}-of-another-0a", after=1))


def test_every_start_of_a_worker_has_another_name() -> None:
    assert new_worker_id() != new_worker_id()
