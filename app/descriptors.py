"""How many files and connections the system lets this process have open, and how many of them clients may have.

Knows no network and no server. Invariant: clients that connect, each with a body that is spooled, leave descriptors for
the database, the log and the pipes to the generation process.
"""

import resource

WANTED_FILES = 16 * 1024
"""Enough for `MOST_CONNECTIONS`. Systems have 1024 by default, for the sake of programs that use `select`."""
OWN_FILES = 64
"""Beside connections and spools: some fifteen at rest, and three for each of eight connections to the database."""
FILES_PER_CONNECTION = 2
"""Its socket, and the spool of what it uploads."""
MOST_CONNECTIONS = 4096
"""However many files there may be: each may hold 64 KiB, of a head or a body, before anybody is asked for a key."""


def raise_limit() -> None:
    """Let this process have as many files open as it may allow itself, up to `WANTED_FILES`. Lowers nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """So many clients may be connected, under the limit as it is now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(1, (soft - OWN_FILES) // FILES_PER_CONNECTION))
