"""What the service looks after once a second: jobs of dead workers, workers seen alive, space of abandoned uploads.

Knows no HTTP. Runs in one thread of its own. Invariant: nothing here compares clocks of two machines; a worker is alive
if its counter was seen to move, on our own monotonic clock.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from app.store import blobs, workers
from app.store.database import LOG_BYTES, Database
from app.store.errors import StoreError
from app.store.stale_watch import StaleWatch

log = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0
SWEEP_EVERY = 600
"""Periods between two sweeps of blobs that were never made visible."""
LOG_EVERY = 10
"""Periods between two looks at the write-ahead log."""
BLOB_GRACE = timedelta(hours=1)
"""Longer than any upload or checkpoint takes between its last chunk and the row that names it."""


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker as this service saw it: its count of heartbeats, and for how long that has stood still."""

    id: str
    device: str
    memory_bytes: int | None
    job_id: str | None
    seconds_since_heartbeat: float


class Watch:
    """Call `start` once and `stop` once; `workers_seen` at any time, from any thread."""

    def __init__(
        self, database: Database, lease_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._stale = StaleWatch(database, lease_seconds, monotonic=monotonic)
        self._moved: dict[str, tuple[int, float]] = {}
        self._seen: tuple[workers.Worker, ...] = ()
        self._looked = False
        self._periods = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the look that is under way."""
        self._stopping.set()
        self._thread.join()

    def workers_seen(self) -> list[SeenWorker]:
        """The workers whose heartbeat moved within the last lease."""
        now = self._monotonic()
        ages = {worker.id: now - self._moved[worker.id][1] for worker in self._seen}
        return [
            SeenWorker(worker.id, worker.device, worker.memory_bytes, worker.job_id, round(ages[worker.id], 1))
            for worker in self._seen
            if ages[worker.id] < self._lease_seconds
        ]

    def look(self) -> None:
        """One period's work."""
        self._stale.release_stale()
        self._observe()
        if self._periods % LOG_EVERY == 0 and (left := self._database.shorten_log()) > LOG_BYTES:
            log.warning("the write-ahead log has %d MiB: a program keeps reading the database", left >> 20)
        if self._periods % SWEEP_EVERY == 0:
            blobs.sweep(self._database, BLOB_GRACE)
        self._periods += 1

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except StoreError as error:
                log.warning("the watch could not read the store, and tries again: %s", error)
            except Exception:  # the thread must outlive a surprise: without it no dead worker's job goes on
                log.exception("the watch failed, and tries again")
            self._stopping.wait(PERIOD_SECONDS)

    def _observe(self) -> None:
        now = self._monotonic()
        found = tuple(workers.list_workers(self._database))
        moved = {}
        for worker in found:
            # Who was there before our first look may be long dead: only a beat that we see tells.
            known = (-1, 0.0) if self._looked else (worker.beats, -math.inf)
            beats, since = self._moved.get(worker.id, known)
            moved[worker.id] = (worker.beats, now if worker.beats != beats else since)
        self._looked = True
        # First the times, then those who have one: `workers_seen` reads from other threads.
        self._moved = self._moved | moved
        self._seen = found
        self._moved = moved
