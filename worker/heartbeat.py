"""Keeps a job's lease while the job moves, and ends the job's child when it should end.

A thread of its own, because storing a large checkpoint takes longer than a lease. It decides, once, why the child ends
early (`Ending`); the runner, which sees the child's last event, writes that down.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum

from app.store import claims
from app.store.claims import Claim
from app.store.database import Database
from app.store.errors import LeaseLost, StoreError
from worker.launch import TrainingChild

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 2.0
PAUSE_SECONDS = 5.0
"""How long a child may take to store its resume point on a pause or shutdown; docker's own grace is ten."""
SLOW_STEP_FACTOR = 20
"""A step is hung when it takes so many times the longest one seen (and longer than the stall limit)."""


class Ending(StrEnum):
    """Why a child is made to end before its budget is used up."""

    CANCELLED = "cancelled"
    PAUSED = "paused"
    STOPPING = "stopping"  # the worker itself shuts down
    STALLED = "stalled"
    LEASE_LOST = "lease_lost"


GENTLE = frozenset({Ending.PAUSED, Ending.STOPPING})
"""The child is asked for a resume point first, and killed only when that takes too long."""


class Heartbeat(threading.Thread):
    """Start it right after the claim; `attach` the child when there is one; `end` when the job is recorded."""

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        stall_seconds: float,
        stop_requested: Callable[[], bool],
        beat_seconds: float = HEARTBEAT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name=f"heartbeat of {claim.job.id}", daemon=True)
        self._database = database
        self._claim = claim
        self._stall_seconds = stall_seconds
        self._stop_requested = stop_requested
        self._beat_seconds = beat_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._done = False
        self._child: TrainingChild | None = None
        self._moved_at = monotonic()
        self._longest_gap = 0.0
        self._kill_at: float | None = None
        self.ending: Ending | None = None

    def attach(self, child: TrainingChild) -> None:
        """Name the child, which may already be wanted to end."""
        with self._lock:
            self._child = child
            if self.ending is not None:
                self._tell_child()

    def moved(self) -> None:
        """The job gave a sign of life."""
        now = self._monotonic()
        self._longest_gap = max(self._longest_gap, now - self._moved_at)
        self._moved_at = now

    def wake(self) -> None:
        """Look around now rather than at the next beat (the worker is asked to stop)."""
        self._wake.set()

    def end(self) -> None:
        """Stop beating and wait for the thread to be gone."""
        self._done = True
        self._wake.set()
        self.join()

    def run(self) -> None:
        while not self._done:
            self.beat()
            self._wake.wait(self._seconds_to_next_beat())
            self._wake.clear()

    def _seconds_to_next_beat(self) -> float:
        if self._kill_at is None:
            return self._beat_seconds
        return min(self._beat_seconds, max(0.0, self._kill_at - self._monotonic()))

    def beat(self) -> None:
        """Renew the lease once and act on what is wanted."""
        try:
            wanted = claims.renew(self._database, self._claim)
        except LeaseLost:
            self._end_child(Ending.LEASE_LOST)
            return
        except StoreError:  # locked or full: the lease outlives a missed beat, and the next may get through
            log.warning("job %s: heartbeat not stored", self._claim.job.id, exc_info=True)
        else:
            if wanted.cancel:
                self._end_child(Ending.CANCELLED)
            elif wanted.pause:
                self._end_child(Ending.PAUSED)
        if self._stop_requested():
            self._end_child(Ending.STOPPING)
        limit = max(self._stall_seconds, SLOW_STEP_FACTOR * self._longest_gap)
        if self._monotonic() - self._moved_at > limit:
            log.error("job %s: no sign of life for %.0f s", self._claim.job.id, limit)
            self._end_child(Ending.STALLED)
        self._kill_if_late()

    def _end_child(self, why: Ending) -> None:
        """Record why, once; only a hard ending may overtake a gentle one that is still under way."""
        with self._lock:
            if self.ending is None and why in GENTLE:
                self._kill_at = self._monotonic() + PAUSE_SECONDS
            elif self.ending is not None and (self.ending not in GENTLE or why in GENTLE):
                return
            self.ending = why
            self._tell_child()

    def _tell_child(self) -> None:
        if self._child is None:
            return
        if self.ending in GENTLE:
            self._child.request_pause()
        else:
            self._child.kill()

    def _kill_if_late(self) -> None:
        if self._kill_at is not None and self._monotonic() >= self._kill_at and self._child is not None:
            self._child.kill()
