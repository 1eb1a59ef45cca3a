"""A life at the store that ends at any named place is lived on, and leaves what an undisturbed one leaves."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.lives import Undisturbed, die_at, draw_passing, places, quick_folder, undisturbed

pytestmark = pytest.mark.system

SEED = 1


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=quick_folder()) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def expected(folder: Path) -> Undisturbed:
    return undisturbed(folder)


def test_a_life_passes_every_place_of_the_store(expected: Undisturbed) -> None:
    assert [name for name in places() if not expected.passings.get(name)] == []


@pytest.mark.parametrize("name", places())
def test_nothing_is_lost_or_done_twice_when_a_life_ends_there(name: str, expected: Undisturbed, folder: Path) -> None:
    nth = draw_passing(expected, random.Random(f"{SEED} {name}"), name)
    die_at(folder, expected, name, nth)
