"""Noticing that a worker is gone.

Knows no wall clock: a lease is over when this watch itself has seen a job's heartbeat unchanged for so long, on its own
monotonic clock. So no clock jump, here or on the worker's machine, steals or strands a job.
"""

import logging
import time
from collections.abc import Callable

from sqlalchemy import select

from app.fault_points import fault_point
from app.store.database import Database
from app.store.errors import LeaseLost, StoreError
from app.store.job_rows import read_job
from app.store.job_state import JobStatus
from app.store.lease import Claim, release_in
from app.store.schema import jobs

logger = logging.getLogger(__name__)

Mark = tuple[int, int]
"""(attempt, heartbeat) of a running job."""


class StaleWatch:
    """Call `release_stale` every second or so. Several watches, in several processes, do no harm."""

    def __init__(
        self, database: Database, lease_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._quiet: dict[str, tuple[Mark, float]] = {}

    def release_stale(self) -> list[str]:
        """The ids of jobs taken from workers that showed no life for a whole lease."""
        # Half a lease at most: a watch that was stopped itself (with the worker, say) has seen nothing meanwhile.
        passed = min(self._monotonic() - self._looked_at, self._lease_seconds / 2)
        marks = self._marks()
        self._looked_at = self._monotonic()
        before, self._quiet = self._quiet, {}
        for job_id, mark in marks.items():
            known, seconds = before.get(job_id, (mark, -passed))
            self._quiet[job_id] = (mark, seconds + passed if known == mark else 0.0)
        stale = [job_id for job_id, (_, seconds) in self._quiet.items() if seconds >= self._lease_seconds]
        try:
            return [job_id for job_id in stale if self._release(job_id, self._quiet.pop(job_id)[0])]
        except StoreError:
            # Nobody could write just now, so the workers' silence says nothing: they have a lease from here on.
            self._quiet.clear()
            raise

    def _marks(self) -> dict[str, Mark]:
        running = select(jobs.c.id, jobs.c.attempt, jobs.c.heartbeat).where(jobs.c.status == JobStatus.RUNNING.value)
        with self._database.read() as connection:
            return {row.id: (row.attempt, row.heartbeat) for row in connection.execute(running)}

    def _release(self, job_id: str, mark: Mark) -> bool:
        """Whether the job was taken: not when its worker has just shown life after all."""
        with self._database.write() as connection:
            now = select(jobs.c.attempt, jobs.c.heartbeat).where(jobs.c.id == job_id).with_for_update()
            row = connection.execute(now).first()
            if row is None or (row.attempt, row.heartbeat) != mark:
                return False
            job = read_job(connection, job_id)
            try:
                status = release_in(self._database, connection, Claim(job, job.attempt, None), crashed=True)
            except LeaseLost:
                return False
            fault_point("lease.taking_over")
        fault_point("lease.taken_over")
        logger.warning("%s showed no life for %g s on %s: now %s", job_id, self._lease_seconds, job.worker, status)
        return True
