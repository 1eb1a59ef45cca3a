"""A folder for one attempt's files in the data directory, gone when the attempt ends, however it ends.

Several workers may share the data directory, in containers with process ids of their own: so a folder belongs to
whoever holds the lock on its lock file, and one that nobody holds was left behind by a crash.
"""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK_NAME = "lock"


@contextlib.contextmanager
def attempt_folder(parent: Path, name: str | None = None) -> Iterator[Path]:
    """A new folder `attempt-NAME` inside `parent`, removed on leaving. OSError if somebody has one of that name."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
    try:
        with (folder / LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Only now does it have the name that is swept; the lock goes with it.
            folder = folder.rename(parent / f"attempt-{name or folder.name.removeprefix('new-')}")
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> int:
    """Remove the folders that crashed workers left; how many."""
    removed = 0
    for folder in parent.glob("attempt-*"):
        try:
            with (folder / LOCK_NAME).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        except OSError:  # held by a living worker, or removed this moment
            continue
    return removed
