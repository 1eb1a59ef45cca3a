"""A worker's loop: claims jobs as long as there are places for them, and shows that it lives.

Knows no training; what becomes of a claim is `worker.attempts`' business. Invariant: it returns only when told to, or
when no training can begin any more, and not before every attempt has ended.
"""

import logging
import threading
import time

from app.processes import StopRequest
from app.settings import Settings
from app.store import claims, workers
from app.store.claims import Claim, StaleWatch
from app.store.database import Database
from app.store.errors import StoreError
from worker.attempts import Attempts
from worker.executor import Executor
from worker.heartbeat import HEARTBEAT_SECONDS
from worker.rest import Rest
from worker.workspace import sweep

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""Between two looks at the queue, if nothing calls for an earlier one."""
SWEEP_SECONDS = 600.0
"""Between two looks for what crashed workers left in the folder of attempts: they may never come back to do it."""


class DeviceLost(Exception):
    """The device that this worker trains on does not work any more."""


class Runner:
    """One worker: as many jobs at once as its executor has places for, each in a thread of its own."""

    def __init__(
        self, database: Database, settings: Settings, worker_id: str, executor: Executor, stop: StopRequest
    ) -> None:
        self._database = database
        self._settings = settings
        self._worker_id = worker_id
        self._executor = executor
        self._stop = stop
        self._attempts = Attempts(database, settings, executor, stop)
        self._place_free = threading.Condition()
        self._at_work = 0

    def run(self) -> None:
        """Work until `stop` is set. A running job then stores its resume point and is queued again, at no cost.

        Raises DeviceLost when no training can begin any more: each job of the queue would fail by turns.
        """
        sweep(self._attempts.folder)
        swept_at = time.monotonic()
        presence = threading.Thread(target=self._announce, name="presence", daemon=True)
        presence.start()
        stale = StaleWatch(self._database, self._settings.lease_seconds)
        rest = Rest(self._database, self._stop)
        threads: list[threading.Thread] = []
        while not self._stop.is_set() and not self._is_lost():
            if not self._has_place():
                self._wait_for_place()
                continue
            try:
                for job_id in stale.release_stale():
                    log.warning("job %s: its worker is gone, queued again", job_id)
                claim = claims.claim_next(self._database, self._worker_id, not_now=self._attempts.not_now())
            except Exception as error:  # locked, full or away for now; whatever it is, the worker outlives it
                log.warning("the queue could not be read: %s", error, exc_info=not isinstance(error, StoreError))
                claim = None
            if claim is None:
                if time.monotonic() - swept_at > SWEEP_SECONDS:
                    sweep(self._attempts.folder)
                    swept_at = time.monotonic()
                if self._at_work == 0:
                    self._executor.rest()
                rest.wait(IDLE_SECONDS)
            else:
                rest.end()
                threads = [*filter(threading.Thread.is_alive, threads), *self._begin(claim)]
        rest.end()
        if lost := self._is_lost():
            self._stop.set()
        for thread in threads:
            thread.join()
        presence.join()
        self._leave()
        if lost:
            raise DeviceLost(f"{self._executor.device} does not work any more")

    def _is_lost(self) -> bool:
        return self._attempts.device_is_lost() or self._executor.is_lost()

    def _has_place(self) -> bool:
        return self._at_work < self._executor.places()

    def _wait_for_place(self) -> None:
        """Until a job has ended, or for so long as others may take to free one or a stop to be noticed."""
        with self._place_free:
            self._place_free.wait_for(self._has_place, IDLE_SECONDS)

    def _begin(self, claim: Claim) -> list[threading.Thread]:
        """The attempt's thread. None when no more threads may be had: the job is then given back."""
        with self._place_free:
            self._at_work += 1
        thread = threading.Thread(target=self._run, args=(claim,), name=f"job {claim.job.id}")
        try:
            thread.start()
        except RuntimeError:
            log.exception("job %s: attempt %d cannot begin", claim.job.id, claim.attempt)
            self._attempts.give_back(claim)
            self._free_place()
            return []
        return [thread]

    def _run(self, claim: Claim) -> None:
        try:
            self._attempts.run(claim)
        finally:
            self._free_place()

    def _free_place(self) -> None:
        with self._place_free:
            self._at_work -= 1
            self._place_free.notify()

    def _leave(self) -> None:
        try:
            workers.leave(self._database, self._worker_id)
        except StoreError as error:  # it stays in the list for a lease, as a dead one does
            log.warning("the worker is gone, and could not say so: %s", error)

    def _announce(self) -> None:
        while not self._stop.is_set():
            try:
                self._beat()
            except Exception as error:  # the thread must outlive a surprise: without it the worker would seem dead
                log.warning("presence not stored: %s", error, exc_info=not isinstance(error, StoreError))
            self._stop.wait(HEARTBEAT_SECONDS)

    def _beat(self) -> None:
        told = (self._worker_id, self._executor.device, self._attempts.oldest())
        workers.announce(self._database, *told, memory_bytes=self._executor.memory_bytes)
