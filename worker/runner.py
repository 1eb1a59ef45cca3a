"""Claims jobs, drives their training, records what it says.

Knows no torch and no SQL. Every write names the claim, so a worker that lost its lease can write nothing. Invariant: a
claimed job leaves `run_job` finished, paused, queued again, or with its lease lost; whatever happened.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from app.logs import REQUEST_ID
from app.processes import StopRequest
from app.settings import Settings
from app.store import claims, workers
from app.store.claims import Claim, StaleWatch
from app.store.database import Database
from app.store.errors import DatabaseBusy, DiskFull, LeaseLost, StoreError
from app.store.job_state import JobStatus
from worker.events import Finished, Saved, Started
from worker.heartbeat import HEARTBEAT_SECONDS, Ending, Heartbeat
from worker.launch import DISK_FULL, NO_ROOM, ChildCrashed, TrainingChild, TrainingFailed, TrainingRefusal, TrainingTask
from worker.memory_check import lack_of_memory
from worker.memory_kills import memory_kills
from worker.postponed import Postponed
from worker.preparation import Interrupted, prepare
from worker.recorder import Recorder
from worker.workspace import attempt_folder, sweep

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""Between two looks at the queue."""
ROOM_SECONDS = 2.0
"""Between two tries to store what there was no room for, or no chance to."""
SWEEP_SECONDS = 600.0
"""Between two looks for what crashed workers left in the folder of attempts: they may never come back to do it."""
NOT_NOW = (DiskFull, DatabaseBusy)
"""What of the store passes, and is no fault of a job."""


class DeviceLost(Exception):
    """The device that this worker trains on does not work any more."""


def training_threads() -> int:
    """All cores that this process may use. A resumed training takes the number that it began with instead."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Runner:
    """One worker: one job at a time on one device."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        worker_id: str,
        device: str,
        stop: StopRequest,
        *,
        memory_bytes: int,
        start_child: Callable[[TrainingTask], TrainingChild] = TrainingChild,
        device_works: Callable[[], bool] = lambda: True,
    ) -> None:
        self._database = database
        self._settings = settings
        self._worker_id = worker_id
        self._device = device
        self._threads = settings.torch_threads or training_threads()
        self._memory_bytes = memory_bytes
        self._start_child = start_child
        self._device_works = device_works
        self._device_lost = False
        self._folder = settings.temporary_dir / "attempts"
        self._stop = stop
        self._postponed = Postponed()
        self._job_id: str | None = None

    def run(self) -> None:
        """Work until `stop` is set. A running job then stores its resume point and is queued again, at no cost.

        Raises DeviceLost when no training can begin any more: each job of the queue would fail by turns.
        """
        sweep(self._folder)
        swept_at = time.monotonic()
        presence = threading.Thread(target=self._announce, name="presence", daemon=True)
        presence.start()
        stale = StaleWatch(self._database, self._settings.lease_seconds)
        while not self._stop.is_set() and not self._device_lost:
            try:
                for job_id in stale.release_stale():
                    log.warning("job %s: its worker is gone, queued again", job_id)
                claim = claims.claim_next(self._database, self._worker_id, not_now=self._postponed.not_now())
            except StoreError:  # locked or full for now; nothing was claimed
                log.warning("the queue could not be read", exc_info=True)
                claim = None
            if claim is None:
                if time.monotonic() - swept_at > SWEEP_SECONDS:
                    sweep(self._folder)
                    swept_at = time.monotonic()
                self._stop.wait(IDLE_SECONDS)
            else:
                self.run_job(claim)
        if self._device_lost:
            self._stop.set()
        presence.join()
        self._leave()
        if self._device_lost:
            raise DeviceLost(f"{self._device} does not work any more")

    def _leave(self) -> None:
        try:
            workers.leave(self._database, self._worker_id)
        except StoreError:  # it stays in the list for a lease, as a dead one does
            log.warning("the worker is gone, and could not say so", exc_info=True)

    def _announce(self) -> None:
        while not self._stop.is_set():
            try:
                self._beat()
            except Exception:  # the thread must outlive a surprise: without it the worker would seem dead
                log.warning("presence not stored", exc_info=True)
            self._stop.wait(HEARTBEAT_SECONDS)

    def _beat(self) -> None:
        told = (self._worker_id, self._device, self._job_id)
        workers.announce(self._database, *told, memory_bytes=self._memory_bytes)

    def run_job(self, claim: Claim) -> None:
        """One attempt, from claim to a recorded end. What is logged meanwhile bears the id of the job's request."""
        REQUEST_ID.set(claim.job.request_id or "")
        log.info("job %s: attempt %d begins", claim.job.id, claim.attempt)
        heartbeat = Heartbeat(
            self._database,
            claim,
            stall_seconds=self._settings.stall_seconds,
            stop_requested=self._stop.is_set,
            beat_seconds=min(HEARTBEAT_SECONDS, self._settings.lease_seconds / 4),
        )
        self._job_id = claim.job.id
        heartbeat.start()
        try:
            end = self._end_of(claim, heartbeat)
            heartbeat.detach()
            # Until it is recorded, which may have to wait for a lock or for room, the job is ours.
            self._record_end(claim, end)
        except LeaseLost:
            log.warning("job %s: attempt %d lost its lease", claim.job.id, claim.attempt)
        finally:
            heartbeat.end()
            self._job_id = None
            REQUEST_ID.set("")

    def _end_of(self, claim: Claim, heartbeat: Heartbeat) -> Callable[[Claim], None]:
        """What to do with the job, whatever happened. Raises LeaseLost."""
        try:
            return self._attempt(claim, heartbeat)
        except LeaseLost:
            raise
        except Exception as error:
            log.exception("job %s: attempt %d broke off", claim.job.id, claim.attempt)
            if isinstance(error, NOT_NOW) or (isinstance(error, OSError) and error.errno in NO_ROOM):
                return self._later
            # A failing disk, a bug of ours: the next attempt starts from the newest resume point, and three without
            # progress fail the job.
            return self._crashed

    def _record_end(self, claim: Claim, end: Callable[[Claim], None]) -> None:
        try:
            self._once_there_is_room(lambda: end(claim), self._stop.is_set, self._stop.wait)
        except (LeaseLost, StoreError):  # another worker takes it over when the lease has run out
            log.exception("job %s: the end of attempt %d could not be stored", claim.job.id, claim.attempt)

    def _attempt(self, claim: Claim, heartbeat: Heartbeat) -> Callable[[Claim], None]:
        """Train; what to do with the job then."""
        if (error := lack_of_memory(self._database, claim, self._device, self._memory_bytes)) is not None:
            return self._unfit(error)
        with attempt_folder(self._folder) as folder:
            try:
                with heartbeat.patience():
                    task = self._prepare(claim, folder, lambda: heartbeat.ending is not None)
            except TrainingFailed as failure:
                return self._failed(failure.refusal)
            except Interrupted:
                return self._ended_early(claim, heartbeat.ending) or self._released
            kills_before = memory_kills()
            recorder = Recorder(self._database, claim)
            with closing(self._start_child(task)) as child:
                heartbeat.attach(child)
                try:
                    return self._drive(claim, child, heartbeat, recorder)
                except ChildCrashed as crash:
                    killed_by_others = crash.exit_code == -signal.SIGKILL and heartbeat.ending is None
                    out_of_memory = killed_by_others and memory_kills() > kills_before
                    if early := self._ended_early(claim, heartbeat.ending):
                        return early
                    return self._after_crash(claim, crash, recorder.has_started, out_of_memory)
                except TrainingFailed as failure:
                    return self._failed(failure.refusal)

    def _prepare(self, claim: Claim, folder: Path, in_vain: Callable[[], bool]) -> TrainingTask:
        compiled, threads = self._settings.compiled_dir, self._threads
        return prepare(self._database, claim, folder, compiled, device=self._device, threads=threads, in_vain=in_vain)

    def _drive(
        self, claim: Claim, child: TrainingChild, heartbeat: Heartbeat, recorder: Recorder
    ) -> Callable[[Claim], None]:
        for event in child.events():
            heartbeat.moved()
            if isinstance(event, Started):  # there was room for all that it needs to begin
                self._postponed.forget(claim.job.id)
            with heartbeat.patience():  # storing a large checkpoint is no hung step
                # Not `_stop.wait`, which is over at once when a stop is asked for: the ending comes with the next beat.
                store, in_vain = partial(recorder.record, event), lambda: heartbeat.ending is not None
                self._once_there_is_room(store, in_vain, heartbeat.wait_for_ending)
            if isinstance(event, Saved):
                heartbeat.settled()
            if isinstance(event, Finished):
                return self._after_finish(event, heartbeat.ending)
        raise AssertionError("events end with Finished or an exception")

    def _once_there_is_room(
        self, store: Callable[[], None], in_vain: Callable[[], bool], wait: Callable[[float], object]
    ) -> None:
        """Store it, again and again while the disk is full or the database locked, unless that is in vain.

        Training stands still meanwhile and loses nothing; whatever is refused so has changed nothing.
        """
        while True:
            try:
                return store()
            except NOT_NOW as error:
                if in_vain():
                    raise
                log.warning("it could not be stored, and is tried again: %s", error)
            wait(ROOM_SECONDS)

    def _after_finish(self, event: Finished, ending: Ending | None) -> Callable[[Claim], None]:
        if event.reason != "paused":
            return self._succeeded
        return self._paused if ending is Ending.PAUSED else self._released

    def _ended_early(self, claim: Claim, ending: Ending | None) -> Callable[[Claim], None] | None:
        """What to do with a job that was wanted to end; None if it was not. Raises LeaseLost."""
        if ending is Ending.LEASE_LOST:
            raise LeaseLost(claim.job.id, claim.attempt)
        if ending is Ending.PAUSED:  # too slow to store a resume point: it goes on from the last one
            return self._paused
        return self._released if ending in (Ending.CANCELLED, Ending.STOPPING) else None

    def _after_crash(
        self, claim: Claim, crash: ChildCrashed, has_started: bool, out_of_memory: bool
    ) -> Callable[[Claim], None]:
        if crash.exit_code > 0 and not has_started and not self._device_works():
            self._device_lost = True
            log.error("job %s: given back, since %s does not work any more", claim.job.id, self._device)
            return self._released
        log.error("job %s: %s%s", claim.job.id, crash, ", for lack of memory" if out_of_memory else "")
        return self._out_of_memory if out_of_memory else self._crashed

    def _succeeded(self, claim: Claim) -> None:
        claims.finish(self._database, claim, JobStatus.SUCCEEDED)

    def _paused(self, claim: Claim) -> None:
        claims.release(self._database, claim, pause=True)

    def _released(self, claim: Claim) -> None:
        claims.release(self._database, claim)

    def _later(self, claim: Claim) -> None:
        # Another worker may claim it at once, and what follows in the queue may find no room either.
        self._stop.wait(ROOM_SECONDS)
        claims.release(self._database, claim)
        self._postponed.add(claim.job.id)

    def _crashed(self, claim: Claim) -> None:
        claims.release(self._database, claim, crashed=True)

    def _out_of_memory(self, claim: Claim) -> None:
        claims.release(self._database, claim, crashed=True, out_of_memory=True)

    def _failed(self, refusal: TrainingRefusal) -> Callable[[Claim], None]:
        log.error("the training process gave up", extra={"trace": refusal.traceback})
        if refusal.code == DISK_FULL:
            return self._later
        return self._unfit({"code": refusal.code, "detail": refusal.detail})

    def _unfit(self, error: dict[str, Any]) -> Callable[[Claim], None]:
        log.error("job failed: %s", error)
        return lambda claim: claims.finish(self._database, claim, JobStatus.FAILED, error)
