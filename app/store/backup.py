"""A copy of the whole database in one file, made while others read and write it.

Knows nothing of what is stored. Invariants: under the copy's name stands a whole, verified database or what stood there
before; nobody who writes meanwhile waits longer than for any other writer; and database files that others have open
are opened through SQLite alone (closing a plain descriptor would drop this process' locks on them).
"""

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from app.store.database import let_others_write
from app.store.driver_errors import named_errors
from app.store.errors import BackupRefused, DatabaseUnusable
from app.store.part_file import BESIDE, PartFile, beside, part_file
from app.store.sqlite_engine import newest_sqlite
from app.store.sqlite_files import connect_to_file, look_at, sqlite_file
from app.store.verification import Contents, check_ours, verify

STEP_PAGES = 256
"""1 MiB: a millisecond or two, in which a rollback journal lets nobody write."""
SYNC_STEPS = 16
"""So many MiB of the copy may wait for the disk: a writer's own sync could have to wait for all that is unwritten."""
RESTARTS = 4
"""With a rollback journal a copy begins anew when someone has written. So often, before writers must wait for it."""
HOLD_SECONDS = 10.0
"""How long these wait at most: less than a lease (13 s), and than a writer's patience (15 s)."""


def back_up(url: str, target: Path, *, force: bool = False) -> Contents:
    """What the new file `target` holds: all that the database at `url` held at one moment of the call.

    A `target` that exists is refused, or replaced at the end with `force`. Raises BackupRefused, DatabaseUnusable,
    Damaged, DiskFull, OSError; then `target` is as it was.
    """
    source, target = sqlite_file(url), target.absolute()
    if not source.is_file():
        raise DatabaseUnusable(f"there is no database {source}")
    _check_target(source, target, force)
    with part_file(target) as part:
        with closing(look_at(source)) as original:
            check_ours(original)
        _copy(source, part)
        with closing(look_at(part.path, static=True)) as copy:
            contents = verify(copy, source)
        _check_target(source, target, force)  # it may have come meanwhile
        part.publish(target, new=not force)
    return contents


def _check_target(source: Path, target: Path, force: bool) -> None:
    """Refuse to write where a database would be lost, or a stale log be taken for the copy's."""
    if target.resolve() in [beside(source.resolve(), suffix) for suffix in ("", *BESIDE)]:
        raise BackupRefused(f"{target} belongs to the database itself")
    if target.is_dir():
        raise BackupRefused(f"{target} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise BackupRefused(f"{target} is no file")
    if os.path.lexists(target) and not force:
        raise BackupRefused(f"{target} exists; --force replaces it")
    for suffix in BESIDE:
        if os.path.lexists(beside(target, suffix)):
            raise BackupRefused(f"{beside(target, suffix)} would be taken for a part of the backup; remove it first")


def _copy(source: Path, part: PartFile) -> None:
    with named_errors(newest_sqlite()), closing(connect_to_file(source)) as original:
        if _journal(original) == "wal":
            # A reader keeps nobody from writing, and the copy need not begin anew: it is of one moment.
            _copy_held(original, part, seconds=None)
        else:
            _copy_between(original, part)
        with closing(connect_to_file(part.path)) as copy:  # one file, whoever opens it and wherever
            copy.execute("PRAGMA journal_mode=DELETE").fetchall()


def _journal(connection: Any) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def _copy_held(original: Any, part: PartFile, seconds: float | None) -> None:
    """Copy in one reading transaction, of `seconds` at most."""
    ends_at = None if seconds is None else time.monotonic() + seconds

    def watch(_restarts: int) -> None:
        if ends_at is not None and time.monotonic() > ends_at:
            raise BackupRefused(
                f"others write all the time, and copying takes longer than the {seconds:g} s for which they may be "
                "kept waiting: stop the worker meanwhile"
            )

    original.execute("BEGIN")
    try:
        original.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # only now it is the view of one moment
        _pages(original, part, watch)
    finally:
        original.execute("ROLLBACK")


class _Overtaken(Exception):
    """Others have written so often that the copy would never come to its end."""


def _copy_between(original: Any, part: PartFile) -> None:
    """Copy in steps between which others may write; if they do too often, hold them up for a while."""

    def watch(restarts: int) -> None:
        if restarts > RESTARTS:
            raise _Overtaken
        let_others_write()

    try:
        _pages(original, part, watch)
    except _Overtaken:
        os.ftruncate(part.descriptor, 0)
        _copy_held(original, part, HOLD_SECONDS)


def _pages(original: Any, part: PartFile, watch: Callable[[int], None]) -> None:
    """Copy all pages; `watch` is called after each step, with the number of times that the copy began anew."""
    steps, restarts, left = 0, 0, None

    def after_step(_status: int, remaining: int, _total: int) -> None:
        nonlocal steps, restarts, left
        restarts += left is not None and remaining >= left  # each step but the first of all leaves less
        steps, left = steps + 1, remaining
        if steps % SYNC_STEPS == 0:
            os.fdatasync(part.descriptor)
        watch(restarts)

    with closing(connect_to_file(part.path)) as copy:
        # Until it is verified and published nobody relies on it; then its writer syncs it.
        copy.execute("PRAGMA journal_mode=OFF").fetchall()
        copy.execute("PRAGMA synchronous=OFF")
        original.backup(copy, pages=STEP_PAGES, progress=after_step)
