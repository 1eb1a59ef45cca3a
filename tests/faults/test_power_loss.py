"""A power loss, at any moment and whatever it leaves of the unsynced writes, takes nothing that was acknowledged.

The short form of `python -m tests.faults.power_loss`. That the harness can fail is shown with less syncing than the
store asks for: what is lost then must be found.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from tests.faults.lossy_disk import Disk, File, Renaming, Resize, Write
from tests.faults.power_loss import JOURNALS, memory_folder, record_work, states, try_states
from tests.faults.strace_record import strace_works

needs_strace = pytest.mark.skipif(
    not strace_works(), reason="needs strace (Debian's package strace) and leave to trace a child"
)
SHORT = 70


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(dir=memory_folder()) as made:
        yield Path(made)


@needs_strace
@pytest.mark.parametrize("journal", JOURNALS)
def test_nothing_acknowledged_is_lost_and_the_store_goes_on(folder: Path, journal: str) -> None:
    recorded = record_work(folder / "record", journal, steps=5)
    verdict = try_states(recorded, SHORT, seed=1, folder=folder / "states")
    assert verdict.tried >= SHORT
    assert verdict.problems == []


@needs_strace
@pytest.mark.parametrize(
    ("journal", "synchronous", "problem"),
    [
        ("wal", "OFF", ""),  # anything
        ("wal", "NORMAL", "missing"),  # the log is synced before it is copied, not at each commit
        ("delete", "FULL", "missing"),  # the removal of the journal, which is the commit, is not synced
    ],
)
def test_with_less_syncing_the_loss_is_found(folder: Path, journal: str, synchronous: str, problem: str) -> None:
    recorded = record_work(folder / "record", journal, synchronous, steps=0)
    verdict = try_states(recorded, 30, seed=1, folder=folder / "states")
    assert verdict.problems
    assert all(problem in found for found in verdict.problems), verdict.problems


@needs_strace
def test_the_same_seed_tries_the_same_states(folder: Path) -> None:
    recorded = record_work(folder / "record", "wal", steps=0)
    first, again, other = ([one.files for one in states(recorded, 20, seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def found(disk: Disk) -> list[dict[str, bytes]]:
    return [disk.after_power_loss(Random(seed)) for seed in range(400)]


def with_file(content: bytes) -> tuple[Disk, File]:
    """A disk on which `x` with this content is safe."""
    disk, file = Disk(), File(bytearray(content))
    disk.rename(Renaming({"x": file}))
    disk.synced(disk.pending)
    return disk, file


def test_what_was_synced_is_there_and_what_was_not_is_there_by_sectors() -> None:
    disk, file = with_file(b"a" * 1024)
    file.pending.append(Write(256, b"b" * 512))
    contents = {state["x"] for state in found(disk)}
    first, second = b"a" * 256 + b"b" * 256, b"b" * 256 + b"a" * 256
    assert contents == {x + y for x in (first, b"a" * 512) for y in (second, b"a" * 512)}
    file.synced(file.pending)
    assert {state["x"] for state in found(disk)} == {first + second}


def test_where_a_file_grew_unsynced_stand_zeros_or_rubbish_or_its_old_end() -> None:
    disk, file = with_file(b"a" * 512)
    file.pending.append(Write(512, b"b" * 512))
    ends = {state["x"][512:] for state in found(disk)}
    assert {b"", b"b" * 512, bytes(512)} < ends, "and rubbish"


def test_a_cut_may_be_forgotten() -> None:
    disk, file = with_file(b"a" * 512)
    file.pending.append(Resize(0))
    assert {state["x"] for state in found(disk)} == {b"", b"a" * 512}


def test_a_name_is_sure_only_once_the_folder_is_synced() -> None:
    disk, file = with_file(b"a")
    disk.rename(Renaming(taken=("x",)))
    disk.rename(Renaming({"y": file}))
    assert {tuple(state) for state in found(disk)} == {("x",), (), ("x", "y"), ("y",)}
    disk.synced(disk.pending)
    assert {tuple(state) for state in found(disk)} == {("y",)}
