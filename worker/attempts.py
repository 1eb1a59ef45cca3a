"""An attempt at a claimed job, from the claim to a recorded end.

Knows no torch and no SQL. Every write names the claim, so a worker that lost its lease can write nothing. Invariant: a
claimed job leaves `run` finished, paused or queued again, whatever happened; or nobody renews its lease any more.
"""

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from app.logs import REQUEST_ID
from app.processes import StopRequest
from app.settings import Settings
from app.store import claims
from app.store.claims import Claim
from app.store.database import Database
from app.store.errors import DatabaseBusy, DatabaseUnreachable, DiskFull, LeaseLost
from app.store.job_state import JobStatus
from worker.events import Finished, Saved, Started
from worker.executor import Executor, NoPlace, Training
from worker.heartbeat import HEARTBEAT_SECONDS, Ending, Heartbeat
from worker.launch import DISK_FULL, NO_ROOM, ChildCrashed, TrainingFailed, TrainingRefusal, TrainingTask
from worker.memory_check import lack_of_memory
from worker.memory_kills import memory_kills
from worker.postponed import Postponed
from worker.preparation import Interrupted, prepare
from worker.recorder import Recorder
from worker.workspace import attempt_folder

log = logging.getLogger(__name__)

ROOM_SECONDS = 2.0
"""Between two tries to store what there was no room for, or no chance to."""
NOT_NOW = (DiskFull, DatabaseBusy, DatabaseUnreachable)
"""What of the store passes, and is no fault of a job."""


class Attempts:
    """Those of one worker; each `run` is one, any number at once, each in a thread of its own."""

    def __init__(self, database: Database, settings: Settings, executor: Executor, stop: StopRequest) -> None:
        self._database = database
        self._settings = settings
        self._executor = executor
        self._stop = stop
        self._device_lost = threading.Event()
        self._postponed = Postponed()
        self._jobs: dict[str, None] = {}  # that run now, the oldest first

    @property
    def folder(self) -> Path:
        """Where each has a folder of its own."""
        return self._settings.temporary_dir / "attempts"

    def device_is_lost(self) -> bool:
        """Whether one has found out that no training can begin here any more."""
        return self._device_lost.is_set()

    def not_now(self) -> frozenset[str]:
        """The ids of jobs that should not be claimed at this moment."""
        return self._postponed.not_now()

    def oldest(self) -> str | None:
        """The id of the job that has run longest, if any runs."""
        return next(iter(list(self._jobs)), None)

    def give_back(self, claim: Claim) -> None:
        """The claimed job, for which nothing could be done here; it is left alone for a while."""
        self._record_end(claim, self._later)

    def run(self, claim: Claim) -> None:
        """One attempt. What is logged meanwhile bears the id of the job's request."""
        REQUEST_ID.set(claim.job.request_id or "")
        log.info("job %s: attempt %d begins", claim.job.id, claim.attempt)
        heartbeat = Heartbeat(
            self._database,
            claim,
            stall_seconds=self._settings.stall_seconds,
            stop_requested=self._stop.is_set,
            beat_seconds=min(HEARTBEAT_SECONDS, self._settings.lease_seconds / 4),
        )
        try:
            heartbeat.start()
        except RuntimeError:  # no more threads may be had
            log.exception("job %s: attempt %d cannot begin", claim.job.id, claim.attempt)
            return self.give_back(claim)
        self._jobs[claim.job.id] = None
        try:
            end = self._end_of(claim, heartbeat)
            heartbeat.detach()
            # Until it is recorded, which may have to wait for a lock or for room, the job is ours.
            self._record_end(claim, end)
        except LeaseLost:
            log.warning("job %s: attempt %d lost its lease", claim.job.id, claim.attempt)
        finally:
            heartbeat.end()
            self._jobs.pop(claim.job.id, None)
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
        except Exception:  # another worker takes it over when the lease has run out
            log.exception("job %s: the end of attempt %d could not be stored", claim.job.id, claim.attempt)

    def _attempt(self, claim: Claim, heartbeat: Heartbeat) -> Callable[[Claim], None]:
        """Train; what to do with the job then."""
        executor = self._executor
        if (error := lack_of_memory(self._database, claim, executor.device, executor.memory_bytes)) is not None:
            return self._unfit(error)
        with attempt_folder(self.folder) as folder:
            try:
                with heartbeat.patience():
                    task = self._prepare(claim, folder, lambda: heartbeat.ending is not None)
            except TrainingFailed as failure:
                return self._failed(failure.refusal)
            except Interrupted:
                return self._ended_early(claim, heartbeat.ending) or self._released
            kills_before = memory_kills()
            recorder = Recorder(self._database, claim)
            try:
                with closing(self._start(task)) as training:
                    del task  # a resume point may be large, and is on its way
                    heartbeat.attach(training)
                    return self._drive(claim, training, heartbeat, recorder)
            except ChildCrashed as crash:
                killed_by_others = crash.exit_code == -signal.SIGKILL and heartbeat.ending is None
                for_memory = crash.out_of_memory
                if for_memory is None:
                    for_memory = memory_kills() > kills_before
                out_of_memory = killed_by_others and for_memory
                if early := self._ended_early(claim, heartbeat.ending):
                    return early
                return self._after_crash(claim, crash, recorder.has_started, out_of_memory)
            except NoPlace as why:
                log.warning("job %s: %s", claim.job.id, why)
                return self._ended_early(claim, heartbeat.ending) or self._later
            except TrainingFailed as failure:
                return self._failed(failure.refusal)

    def _start(self, task: TrainingTask) -> Training:
        """Raises NoPlace."""
        try:
            return self._executor.start(task)
        except (RuntimeError, BlockingIOError) as error:  # no more threads, no more processes may be had
            raise NoPlace(f"its training could not be begun: {error}") from error

    def _prepare(self, claim: Claim, folder: Path, in_vain: Callable[[], bool]) -> TrainingTask:
        executor, compiled = self._executor, self._settings.compiled_dir
        return prepare(
            self._database, claim, folder, compiled, device=executor.device, threads=executor.threads, in_vain=in_vain
        )

    def _drive(
        self, claim: Claim, training: Training, heartbeat: Heartbeat, recorder: Recorder
    ) -> Callable[[Claim], None]:
        for event in training.events():
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
        if crash.exit_code > 0 and not has_started and not self._executor.works():
            self._device_lost.set()
            log.error("job %s: given back, since %s does not work any more", claim.job.id, self._executor.device)
            return self._released
        log.error("job %s: %s%s", claim.job.id, crash, ", for lack of memory" if out_of_memory else "")
        return self._out_of_memory if out_of_memory else self._crashed

    def _succeeded(self, claim: Claim) -> None:
        self._finish(claim, JobStatus.SUCCEEDED)

    def _paused(self, claim: Claim) -> None:
        self._release(claim, "paused", pause=True)

    def _released(self, claim: Claim) -> None:
        self._release(claim, "given back")

    def _later(self, claim: Claim) -> None:
        # Another worker may claim it at once, and what follows in the queue may find no room either.
        self._stop.wait(ROOM_SECONDS)
        self._postponed.add(claim.job.id, claim.attempt)  # first: this worker, too, may claim it at once
        self._release(claim, "given back, and tried again later")

    def _crashed(self, claim: Claim) -> None:
        self._release(claim, "crashed, and goes on from its newest resume point", crashed=True)

    def _out_of_memory(self, claim: Claim) -> None:
        self._release(claim, "out of memory", crashed=True, out_of_memory=True)

    def _finish(self, claim: Claim, status: JobStatus, error: dict[str, Any] | None = None) -> None:
        claims.finish(self._database, claim, status, error)
        log.info("job %s: attempt %d has ended: %s", claim.job.id, claim.attempt, status)

    def _release(self, claim: Claim, words: str, **how: bool) -> None:
        claims.release(self._database, claim, **how)
        log.info("job %s: attempt %d has ended: %s", claim.job.id, claim.attempt, words)

    def _failed(self, refusal: TrainingRefusal) -> Callable[[Claim], None]:
        log.error("the training process gave up", extra={"trace": refusal.traceback})
        if refusal.code == DISK_FULL:
            return self._later
        return self._unfit({"code": refusal.code, "detail": refusal.detail})

    def _unfit(self, error: dict[str, Any]) -> Callable[[Claim], None]:
        log.error("job failed: %s", error)
        return lambda claim: self._finish(claim, JobStatus.FAILED, error)
