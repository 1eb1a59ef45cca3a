"""A power loss in the midst of a backup or a restore leaves a whole database and a whole backup, new or old."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from app.store.corpora import list_corpora
from app.store.opening import open_database
from app.store.sqlite_files import look_at
from app.store.verification import verify
from tests.faults.power_loss import ROOT, Recorded, State, memory_folder
from tests.faults.strace_record import record
from tests.faults.test_power_loss import needs_strace

DRAWS = 20
HOLDS = {
    "first stored": ({"first"}, set()),
    "first backed up": ({"first"}, {"first"}),
    "second stored": ({"first", "second"}, {"first"}),
    "second backed up": ({"first", "second"}, {"first", "second"}),
    "third stored": ({"first", "second", "third"}, {"first", "second"}),
    "second restored": ({"first", "second"}, {"first", "second"}),
}
"""What the database and the backup hold when this was acknowledged last; texts by name."""


def texts(path: Path) -> set[str]:
    """Those that a database holds, all of it verified; none where there is no file."""
    if not path.exists():
        return set()
    with closing(look_at(path)) as database:
        verify(database, path)
        return {corpus.name for corpus in list_corpora(database, 10).data}


def check(state: State, folder: Path) -> None:
    folder.mkdir()
    for name, content in state.files.items():
        if not name.endswith("-shm"):
            (folder / name).write_bytes(content)
    allowed = [HOLDS[acknowledged] for acknowledged in state.allowed]
    assert texts(folder / "kept.db") in [backup for _, backup in allowed], state.allowed
    open_database(f"sqlite:///{folder / 'charsmith.db'}").close()
    found = texts(folder / "charsmith.db")
    assert found in [stored for stored, _ in allowed], state.allowed
    if "second restored" in state.allowed and "third" not in found:
        aside = list(folder.glob("*.before-restore-*Z"))
        assert [texts(path) for path in aside] == [{"first", "second", "third"}]


def losses(recorded: Recorded) -> Iterator[State]:
    """What may be found at some moments, and again and again at those at which a renaming is unsure."""
    history, draw = recorded.history(), Random(1)
    for moment, _ in enumerate(history.moments(recorded.calls)):
        last = history.acknowledged - 1
        if last < 0:
            continue  # nothing need be there
        renamed = any(one.given and one.taken for one in history.disk.pending)
        for _ in range(DRAWS if renamed else moment % 16 == 0):
            files = history.disk.after_power_loss(draw)
            yield State(moment, files, tuple(recorded.states[last : last + 2]))


@needs_strace
def test_the_database_and_its_backup_are_whole_at_every_moment() -> None:
    with TemporaryDirectory(dir=memory_folder()) as made:
        recorded = Recorded(Path(made).resolve(), "wal")
        data = recorded.folder / "data"
        data.mkdir()
        command = [sys.executable, "-m", "tests.faults.backup_work", str(data), str(recorded.acknowledgements)]
        record(command, recorded.folder / "calls", cwd=ROOT, timeout=60)
        number = 0
        for number, state in enumerate(losses(recorded)):
            check(state, Path(made) / str(number))
        assert number > 100
