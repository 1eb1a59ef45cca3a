"""`python -m worker.health`: whether a worker of this machine lives; exit status 0 if so. A container's health check.

Knows the store alone. Invariants: it judges by what moves while it looks, not by clocks; and it only looks: a check
neither creates a database nor changes its tables.
"""

import secrets
import socket
import sys
import time
from collections.abc import Callable

from app.settings import SettingsError, load_settings
from app.store.database import Database
from app.store.errors import StoreError
from app.store.opening import open_existing
from app.store.workers import list_workers
from worker.heartbeat import HEARTBEAT_SECONDS

PATIENCE_SECONDS = 4 * HEARTBEAT_SECONDS
"""How long the beats may stand still: a beat may wait for another writer."""
LOOK_SECONDS = 0.25


def new_worker_id() -> str:
    """A name that tells this machine, and no other start of a worker on it has had."""
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"


def worker_beats(database: Database, host: str, *, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Whether a worker on `host` announces itself while we look, for four beats at most. Raises StoreError."""
    before = _beats(database, host)
    waited = 0.0
    while waited < PATIENCE_SECONDS:
        sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
        if any(beats > before.get(worker_id, 0) for worker_id, beats in _beats(database, host).items()):
            return True
    return False


def _beats(database: Database, host: str) -> dict[str, int]:
    return {worker.id: worker.beats for worker in list_workers(database) if worker.id.rpartition("-")[0] == host}


def main() -> None:
    try:
        database = open_existing(load_settings().resolved_database_url)
        beats = worker_beats(database, socket.gethostname())
        database.close()
    except (SettingsError, StoreError, OSError) as error:
        sys.exit(f"charsmith worker: {error}")
    sys.exit(None if beats else "charsmith worker: no heartbeat of a worker on this machine")


if __name__ == "__main__":
    main()
