"""Lives at the store that end at every named place: what they leave is what an undisturbed life leaves.

The places of the store, in seconds instead of minutes, since nothing is trained; siege.py does it with real programs.
"""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.fault_points import POINTS
from app.store.blobs import sweep
from app.store.opening import open_database
from tests.databases import SERVER, empty_database, remove_database
from tests.faults.evidence import contents, integrity_faults, job_faults, orphans
from tests.faults.life import live
from tests.faults.mortal import KILLED, run_mortal

REAL_ALONE = {"training.event"}
"""Places that only a real training process passes."""
OF_FILES = {"space.given_back"}
"""Places that nobody passes on a server."""


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a life leaves that nobody ends, and how often it passes each place."""

    contents: dict[str, Any]
    passings: Mapping[str, int]


MEMORY = Path("/dev/shm")


def quick_folder() -> Path | None:
    """Where to make databases: a kill loses nothing that was written, whether to a disk or to memory."""
    return MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None


def undisturbed(folder: Path) -> Undisturbed:
    """One whole life in a fresh database."""
    url = empty_database(folder, "undisturbed")
    death = run_mortal(live, url, "", ())
    assert death.exit_code == 0, death
    return Undisturbed(_found(url, "an undisturbed life"), death.told[-1])


def places() -> list[str]:
    """All that a life at the store passes."""
    elsewhere = REAL_ALONE | (OF_FILES if SERVER else set())
    return [name for name in POINTS if name not in elsewhere]


def die_at(folder: Path, expected: Undisturbed, name: str, nth: int) -> None:
    """A life killed at a passing, and lived again, leaves what it should. Raises AssertionError."""
    what = f"{name}:{nth}:kill"
    url = empty_database(folder, what.replace(":", "-"))
    first = run_mortal(live, url, what, ())
    assert first.exit_code == KILLED, f"{what}: the process ended with {first.exit_code}, told {first.told}"
    again = run_mortal(live, url, "", tuple(first.told))
    assert again.exit_code == 0, f"{what}: the next life ended with {again.exit_code}, told {again.told}"
    found = _found(url, what)
    assert found == expected.contents, f"{what}: {found} instead of {expected.contents}"
    remove_database(url)


def draw_passing(expected: Undisturbed, draw: random.Random, name: str) -> int:
    """Any passing of a place that a life comes by."""
    return draw.randint(1, expected.passings[name])


def _found(url: str, what: str) -> dict[str, Any]:
    """The contents of a sound database. Raises AssertionError."""
    database = open_database(url)
    try:
        sweep(database, timedelta(days=-2))  # lives run ahead of the clock
        faults = integrity_faults(database) + orphans(database) + job_faults(database)
        assert not faults, f"{what}: {faults}"
        return contents(database)
    finally:
        database.close()
