"""Keeps a job's lease while the job moves, and ends the job's child when it should end.

A thread of its own, because storing a large checkpoint takes longer than a lease. It decides, once, why the child ends
early (`Ending`); the runner, which sees the child's last event, writes that down.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from app.logs import REQUEST_ID
from app.store import claims
from app.store.claims import Claim
from app.store.database import Database
from app.store.errors import LeaseLost, StoreError
from worker.executor import Training

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 2.0
LOOK_SECONDS = 0.2
"""How soon a stop is noticed between two beats."""
STOOD_STILL_SECONDS = 5.0
"""Between two looks: so long this process was stopped, and most likely the whole container."""
PAUSE_SECONDS = 5.0
"""How long a child may take to store its resume point on a pause or shutdown; docker's own grace is ten."""
START_SECONDS = 300.0
"""Until its first checkpoint is stored a child imports torch, and has everything compiled that is not yet: half a
minute, and on a busy machine with a cold disk five times that."""
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
    """Start it right after the claim; `attach` the child when there is one, `detach` it when it is gone; `end` when the
    job's end is recorded."""

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
        self._done = threading.Event()
        self._ends = threading.Event()
        self._child: Training | None = None
        self._patient = False
        self._moved_at = monotonic()
        self._longest_gap = 0.0
        self._has_moved = self._has_settled = False
        self._looked_at = monotonic()
        self._stood_still = 0.0
        self._kill_at: float | None = None
        self.ending: Ending | None = None

    def attach(self, child: Training) -> None:
        """Name the child, which may already be wanted to end."""
        with self._lock:
            self._child = child
            if self.ending is not None:
                self._tell_child()

    def detach(self) -> None:
        """The child is gone: from here on the lease alone is kept, while the job's end is recorded."""
        with self._lock:
            self._child = None
            self._patient = True

    def wait_for_ending(self, seconds: float) -> None:
        """Return when the child should end, or after so long."""
        self._ends.wait(seconds)

    def moved(self) -> None:
        """The child gave a sign of life."""
        now = self._monotonic()
        if self._has_moved:  # the first sign ends a start, which is no step
            # Where this process stood still itself (a container that was paused) there was no long step.
            self._longest_gap = max(self._longest_gap, now - self._moved_at - self._stood_still)
        self._moved_at, self._has_moved, self._stood_still = now, True, 0.0

    def settled(self) -> None:
        """The child has done once whatever it does: from now on no step takes longer than others."""
        self._has_settled = True

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Within, the worker itself is at work: the child may be waiting for it, and need show no life."""
        self._patient = True
        try:
            yield
        finally:
            self._moved_at, self._stood_still = self._monotonic(), 0.0
            self._patient = False

    def end(self) -> None:
        """Stop beating and wait for the thread to be gone."""
        self._done.set()
        self.join()

    def run(self) -> None:
        REQUEST_ID.set(self._claim.job.request_id or "")
        while not self._done.is_set():
            try:
                self.beat()
            except Exception:  # the thread must outlive a surprise: without it nobody would end the child
                log.exception("job %s: a beat failed", self._claim.job.id)
            self._rest()

    def _rest(self) -> None:
        """Until the next beat is due, or something calls for an earlier one."""
        self._looked_at = self._monotonic()
        beat_at = self._looked_at + self._beat_seconds
        while not self._done.wait(LOOK_SECONDS) and self.look() < beat_at:
            if self._stop_requested() and self.ending is None:
                return
            self._kill_if_late()

    def look(self) -> float:
        """The time. So long as nobody has looked before it is taken for time in which nothing ran."""
        now = self._monotonic()
        if (gap := now - self._looked_at) > STOOD_STILL_SECONDS:
            self._stood_still += gap
        self._looked_at = now
        return now

    def beat(self) -> None:
        """Renew the lease once and act on what is wanted."""
        try:
            wanted = claims.renew(self._database, self._claim)
        except LeaseLost:
            self._end_child(Ending.LEASE_LOST)
            return
        except StoreError as error:  # locked or full: the lease outlives a missed beat, and the next may get through
            log.warning("job %s: heartbeat not stored: %s", self._claim.job.id, error)
        else:
            if wanted.cancel:
                self._end_child(Ending.CANCELLED)
            elif wanted.pause:
                self._end_child(Ending.PAUSED)
        if self._stop_requested():
            self._end_child(Ending.STOPPING)
        self._end_if_stalled()
        self._kill_if_late()

    def _end_if_stalled(self) -> None:
        least = self._stall_seconds if self._has_settled else max(self._stall_seconds, START_SECONDS)
        limit = max(least, SLOW_STEP_FACTOR * self._longest_gap)
        if not self._patient and self._monotonic() - self._moved_at - self._stood_still > limit:
            log.error("job %s: no sign of life for %.0f s", self._claim.job.id, limit)
            self._end_child(Ending.STALLED)

    def _end_child(self, why: Ending) -> None:
        """Record why, once; only a hard ending may overtake a gentle one that is still under way."""
        with self._lock:
            if self.ending is not None and (self.ending not in GENTLE or why in GENTLE):
                return
            self.ending = why
            self._ends.set()
            self._tell_child()

    def _tell_child(self) -> None:
        if self._child is None:
            return
        if self.ending in GENTLE:
            self._kill_at = self._monotonic() + PAUSE_SECONDS
            self._child.request_pause()
        else:
            self._child.kill()

    def _kill_if_late(self) -> None:
        if self._kill_at is not None and self._monotonic() >= self._kill_at and not self._patient:
            self._kill_at = None
            if self._child is not None:
                self._child.kill()
