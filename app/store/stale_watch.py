"""Noticing that a worker is gone.

Knows no wall clock: a lease is over when this watch itself has seen a job's heartbeat unchanged for so long, on its own
monotonic clock, while whoever wanted to write could. So no clock jump, here or on the worker's machine, and no lock of
the database steals or strands a job.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, false, select, update

from app.fault_points import fault_point
from app.store.database import Database
from app.store.errors import DatabaseBusy, DatabaseUnreachable, DiskFull, LeaseLost, StoreError
from app.store.holding import held_row
from app.store.job_rows import read_job
from app.store.job_state import JobStatus
from app.store.lease import Claim, release_in
from app.store.schema import jobs

logger = logging.getLogger(__name__)

Mark = tuple[int, int]
"""(attempt, heartbeat) of a running job."""

WAIT = 1 / 8
"""Of a lease: who waits for longer to write, less than between two heartbeats, keeps others waiting too."""


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
        """The ids of jobs taken from workers that showed no life for a whole lease.

        Raises StoreError if nobody could write, or we could not read (a server that is started anew): the workers'
        silence says nothing then, and all have a lease from there on.
        """
        # Half a lease at most: a watch that was stopped itself (with the worker, say) has seen nothing meanwhile.
        passed = min(self._monotonic() - self._looked_at, self._lease_seconds / 2)
        try:
            marks = self._marks()
            self._looked_at = self._monotonic()
            before, self._quiet = self._quiet, {}
            for job_id, mark in marks.items():
                known, seconds = before.get(job_id, (mark, -passed))
                self._quiet[job_id] = (mark, seconds + passed if known == mark else 0.0)
            if self._quiet_for(self._lease_seconds / 2):
                # Not in `_release` alone: a lock that ends as the lease does is waited for a moment only there, and
                # then the worker, which has waited for it all the time, must have been before us.
                with self._writing():
                    pass
            return [job_id for job_id in self._quiet_for(self._lease_seconds) if self._taken(job_id)]
        except StoreError:
            self._quiet.clear()
            raise

    def _quiet_for(self, least_seconds: float) -> list[str]:
        return [job_id for job_id, (_, seconds) in self._quiet.items() if seconds >= least_seconds]

    def _taken(self, job_id: str) -> bool:
        """Whether the job was taken. One that cannot be, a damaged row say, has a lease anew and hinders no other."""
        try:
            return self._release(job_id, self._quiet.pop(job_id)[0])
        except (DatabaseBusy, DatabaseUnreachable, DiskFull):
            raise
        except Exception:
            logger.exception("%s showed no life, and cannot be taken over", job_id)
            return False

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A writing transaction. Raises DatabaseBusy if the lock was waited for so long that heartbeats wait as well:
        whoever waits may get it first. Raises StoreError where nobody can write."""
        asked_at = self._monotonic()
        with self._database.write() as connection:
            # What a heartbeat needs: under PostgreSQL a transaction alone holds no lock and may be a standby's.
            connection.execute(update(jobs).where(false()).values(heartbeat=jobs.c.heartbeat))
            waited = self._monotonic() - asked_at
            if waited > self._lease_seconds * WAIT:
                raise DatabaseBusy(waited)
            yield connection

    def _marks(self) -> dict[str, Mark]:
        running = select(jobs.c.id, jobs.c.attempt, jobs.c.heartbeat).where(jobs.c.status == JobStatus.RUNNING.value)
        with self._database.read() as connection:
            return {row.id: (row.attempt, row.heartbeat) for row in connection.execute(running)}

    def _release(self, job_id: str, mark: Mark) -> bool:
        """Whether the job was taken: not when its worker has just shown life after all."""
        with self._writing() as connection:
            now = select(jobs.c.attempt, jobs.c.heartbeat).where(jobs.c.id == job_id)
            row = connection.execute(held_row(now, "to change", jobs)).first()
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
