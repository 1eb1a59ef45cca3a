"""A file that appears under its name whole and on the disk, or not at all.

Knows nothing of what is in it. Invariants: until it is published it has another name, which is its writer's alone; what
a killed writer left under that name, the next one takes over; and nobody but the owner may read it.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.store.errors import BackupRefused

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite adds to the name of a database for the files that belong to it."""


class PartFile:
    """The file while it is written. The descriptor is of the file itself; SQLite opens `path` by itself."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.published = False

    def publish(self, target: Path, *, new: bool = False) -> None:
        """It is on the disk, then under its name, for good. What had that name is gone; `new`: nothing may have it.

        Raises BackupRefused, OSError.
        """
        os.fsync(self.descriptor)
        if new:
            try:
                target.hardlink_to(self.path)
            except FileExistsError:
                raise BackupRefused(f"{target} has just been made by another process") from None
            except OSError:  # a file system without hard links
                if os.path.lexists(target):
                    raise BackupRefused(f"{target} has just been made by another process") from None
                self.path.replace(target)
            else:
                self.path.unlink()
        else:
            self.path.replace(target)
        self.published = True
        sync_folder(target.parent)


@contextmanager
def part_file(target: Path) -> Iterator[PartFile]:
    """A new, empty file beside `target`; gone at the end unless it was published. Raises BackupRefused, OSError."""
    path = target.with_name(f"{target.name}.part")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        part = PartFile(path, descriptor)
        _take(part)
        try:
            yield part
        finally:
            if not part.published:  # while it is locked: later it may be another's
                remove_with_siblings(path)
    finally:
        os.close(descriptor)


def _take(part: PartFile) -> None:
    """It is ours, and empty."""
    try:
        fcntl.flock(part.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BackupRefused(f"another process is writing {part.path}") from None
    if not part.path.exists() or not os.path.samestat(part.path.stat(), os.fstat(part.descriptor)):
        raise BackupRefused(f"another process has just written {part.path}")
    found = os.fstat(part.descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        raise BackupRefused(f"{part.path} is another's file: remove it, or write to a folder of your own")
    os.fchmod(part.descriptor, 0o600)
    os.ftruncate(part.descriptor, 0)
    for suffix in BESIDE:
        beside(part.path, suffix).unlink(missing_ok=True)


def beside(path: Path, suffix: str) -> Path:
    """The path with a suffix added to its name."""
    return path.with_name(path.name + suffix)


def remove_with_siblings(path: Path) -> None:
    """The database file, and what SQLite had beside it, are gone."""
    for suffix in ("", *BESIDE):
        beside(path, suffix).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Names that were made or removed there outlive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
