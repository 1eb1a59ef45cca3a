"""Which jobs this worker leaves alone for a while, since there was no room for them or no chance to begin.

Knows no store and forgets all at a restart: another worker, or this one anew, may have more luck. Invariant: a job that
is postponed again and again is left alone for twice as long each time, so that it takes next to nothing from others.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_SECONDS = 2.0
LONGEST_SECONDS = 300.0
"""Within so long after there is room again the job is tried."""


@dataclass(frozen=True, slots=True)
class _Pause:
    attempt: int
    seconds: float
    until: float


class Postponed:
    """Any thread may ask, and tell."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._pauses: dict[str, _Pause] = {}

    def add(self, job_id: str, attempt: int) -> None:
        """The job is left alone from here on, for longer than after its last attempt; told again, for as long."""
        now = self._monotonic()
        with self._lock:
            # Who was not claimed again for so long has gone elsewhere.
            self._pauses = {known: each for known, each in self._pauses.items() if now - each.until < LONGEST_SECONDS}
            before = self._pauses.get(job_id)
            seconds = FIRST_SECONDS if before is None else before.seconds
            if before is not None and before.attempt != attempt:
                seconds = min(2 * seconds, LONGEST_SECONDS)
            self._pauses[job_id] = _Pause(attempt, seconds, now + seconds)

    def forget(self, job_id: str) -> None:
        """The job had its room: the next pause is a first one."""
        with self._lock:
            self._pauses.pop(job_id, None)

    def not_now(self) -> frozenset[str]:
        """The ids of the jobs whose time has not come."""
        now = self._monotonic()
        with self._lock:
            return frozenset(job_id for job_id, pause in self._pauses.items() if now < pause.until)
