"""A backup in the place of the database.

Knows nothing of what is stored but API keys, which are never as they were. Invariants: at every moment, also after a
crash, the database's name means the old one or the backup, whole; the old one is kept under another name; and a file
that is no whole database of ours changes nothing. Must not run beside a service or a worker: it looks whether any is
there.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.store.api_keys import ApiKey, list_keys
from app.store.driver_errors import damage_told
from app.store.errors import BackupRefused, DatabaseFailed, DatabaseUnusable
from app.store.opening import open_database
from app.store.part_file import BESIDE, PartFile, beside, part_file, sync_folder
from app.store.sqlite_engine import newest_sqlite
from app.store.sqlite_files import connect_to_file, look_at, processes_with, sqlite_file
from app.store.verification import Contents, check_ours, verify

FIRST_WITH_KEYS = "0006"
"""The schema that has API keys."""
COPY_BYTES = 1024 * 1024
STOP = "stop the service and its workers first"


@dataclass(frozen=True, slots=True)
class Restored:
    """What the database holds now, and where what was there before is kept (None: there was nothing)."""

    contents: Contents
    aside: Path | None
    keys: tuple[str, ...]
    """The names of the API keys that are valid now."""
    asks_for_keys: bool
    keys_are_current: bool
    """False: what was there before could not be read, so that keys which were revoked since the backup are valid."""


def restore(url: str, backup: Path) -> Restored:
    """The database at `url` is what the file `backup` holds.

    Raises BackupRefused, DatabaseUnusable, Damaged, OSError; then the database is as it was.
    """
    path, backup = sqlite_file(url), backup.absolute()
    _check_backup(backup, path)
    _check_unused(path)  # at once, before anything is copied
    path.parent.mkdir(parents=True, exist_ok=True)
    with part_file(path) as part:
        _copy(backup, part)
        with closing(look_at(part.path, static=True)) as copy:
            contents = verify(copy, backup)
        _give_to_owner_of(path, part)
        os.fsync(part.descriptor)  # most of it; while nobody may use the database little is left
        with alone_with(path) as before:
            carried = _carry_keys(before, part)
            keys = _keys_in(part)
            with _kept_aside(path) as aside:
                part.publish(path, new=aside is None)
    now = datetime.now(UTC)
    usable = tuple(key.name for key in keys if key.is_usable(now))
    return Restored(contents, aside, usable, asks_for_keys=bool(keys), keys_are_current=carried or aside is None)


def _carry_keys(before: Any | None, part: PartFile) -> bool:
    """Put the API keys of the database of before into the new one: a revocation is for good, as is asking for keys.

    False: there is no such database, or it cannot be read. What a newer Charsmith keeps of a key is left out.
    """
    if before is None:
        return False
    try:
        theirs = [row[1] for row in before.execute("PRAGMA table_info(api_keys)")]
        rows = before.execute("SELECT * FROM api_keys").fetchall() if theirs else []  # columns in that order
    except newest_sqlite().DatabaseError:  # damaged: why it is replaced
        return False
    if rows:
        open_database(f"sqlite:///{part.path}").close()  # the newest schema, if it was older
        with closing(connect_to_file(part.path)) as copy:
            ours = {row[1] for row in copy.execute("PRAGMA table_info(api_keys)")}
            both = [name for name in theirs if name in ours]
            values = f"({', '.join(both)}) VALUES ({', '.join('?' * len(both))})"
            kept = [[row[theirs.index(name)] for name in both] for row in rows]
            copy.executemany(f"INSERT OR REPLACE INTO api_keys {values}", kept)
    return True


def _keys_in(part: PartFile) -> list[ApiKey]:
    with closing(look_at(part.path)) as copy:
        return list_keys(copy) if check_ours(copy) >= FIRST_WITH_KEYS else []


def _check_backup(backup: Path, path: Path) -> None:
    if not backup.is_file():
        raise BackupRefused(f"there is no file {backup}")
    if path.exists() and backup.samefile(path):
        raise BackupRefused(f"{backup} is the database itself")
    for suffix in ("-wal", "-journal"):
        if beside(backup, suffix).exists():
            raise BackupRefused(f"{backup} is not all of a database: {beside(backup, suffix)} belongs to it")
    try:
        with closing(look_at(backup, static=True)) as database:
            check_ours(database)
    except (DatabaseFailed, DatabaseUnusable) as error:
        raise DatabaseUnusable(f"{backup} cannot be restored: {error}") from error


def _copy(backup: Path, part: PartFile) -> None:
    at = 0
    with backup.open("rb") as source:
        while piece := source.read(COPY_BYTES):
            while piece:
                written = os.pwrite(part.descriptor, piece, at)
                at, piece = at + written, piece[written:]


def _give_to_owner_of(path: Path, part: PartFile) -> None:
    """Whoever restores, perhaps root: the service must be able to open the file."""
    owner = (path if path.exists() else path.parent).stat()
    if path.exists():
        os.fchmod(part.descriptor, stat.S_IMODE(owner.st_mode))
    with suppress(PermissionError):
        os.fchown(part.descriptor, owner.st_uid, owner.st_gid)


@contextmanager
def alone_with(path: Path) -> Iterator[Any | None]:
    """No other process has the database open, nor begins to use it within: a connection to it, None if there is none.

    Raises BackupRefused.

    Two tests. SQLite leaves its write-ahead log only if no other connection is open anywhere, also in another
    container; and whoever has the file open shows in /proc, if we may look there: with a rollback journal an idle
    connection holds no lock. What is no database, or damaged, is not locked.
    """
    _check_unused(path)
    if not path.exists():
        yield None
        return
    with closing(connect_to_file(path)) as connection:
        yield connection if _lock(connection, path) else None


def _lock(connection: Any, path: Path) -> bool:
    """Whether there is a database to lock."""
    driver = newest_sqlite()
    try:
        with damage_told(driver):
            connection.execute("PRAGMA busy_timeout=0")
            if connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0] == "delete":
                connection.execute("BEGIN EXCLUSIVE")
                return True
    except driver.OperationalError as error:
        if "locked" not in str(error):
            raise DatabaseFailed(str(error)) from error
    except driver.DatabaseError:
        return False  # no database, or a damaged one
    raise BackupRefused(f"{path} is in use by another process: {STOP}")


def _check_unused(path: Path) -> None:
    if processes := processes_with(path):
        raise BackupRefused(f"{path} is in use by process {', '.join(map(str, processes))}: {STOP}")


@contextmanager
def _kept_aside(path: Path) -> Iterator[Path | None]:
    """Where the old database is from now on too (None: there was none); what belongs to it is there alone, also where
    it was left without its database, whose successor SQLite would replay it into. If the block fails, all is as it was.
    """
    now = datetime.now(UTC)
    aside = path.with_name(f"{path.name}.before-restore-{now:%Y%m%dT%H%M%S}.{now.microsecond:06d}Z")
    existed, moved = path.exists(), []
    try:
        if existed:
            aside.hardlink_to(path)
        for suffix in BESIDE:
            if (part := beside(path, suffix)).exists():
                part.rename(beside(aside, suffix))
                moved.append(suffix)
        sync_folder(path.parent)
        yield aside if existed else None
    except BaseException:
        if _is_as_before(path, aside, existed):
            for suffix in moved:
                beside(aside, suffix).rename(beside(path, suffix))
            aside.unlink(missing_ok=True)  # two names of a database in use would be its end
        raise


def _is_as_before(path: Path, aside: Path, existed: bool) -> bool:
    """Whether the name still means what it meant: what failed may have come after the new database had it."""
    if not existed:
        return not path.exists()
    return not aside.exists() or aside.samefile(path)
