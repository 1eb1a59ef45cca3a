"""Whether there is room to write, where SQLite cannot tell it from a broken disk."""

import errno
import os
import tempfile
from pathlib import Path

try:
    import resource
except ImportError:  # not a system of Unix's kind
    resource = None  # type: ignore[assignment]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space on the device; the user's quota is used up; a file may not grow beyond the limit of the process."""
PROBE_BYTES = 64 * 1024


def is_lacking(database: Path) -> bool:
    """Whether a quota or a limit of sizes keeps the files of an SQLite database from growing.

    Of the reasons SQLite names ENOSPC alone, as "full"; of the others it says "disk I/O error". So it is tried:
    by the sizes that there are, and with a small file beside them.
    """
    if _has_reached_limit(database):
        return True
    try:
        with tempfile.TemporaryFile(dir=database.parent) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.errno in NO_ROOM
    return False


def _has_reached_limit(database: Path) -> bool:
    """Whether one of its files is about as large as files of this process may be (RLIMIT_FSIZE)."""
    if resource is None:
        return False
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return False
    files = (database, database.with_name(database.name + "-wal"), database.with_name(database.name + "-journal"))
    return any(file.exists() and file.stat().st_size + PROBE_BYTES > limit for file in files)
