"""Workers and services that are asked to stop, frozen, or killed while another worker waits.

Real programs and real signals; each scenario raises AssertionError as soon as something is not as promised.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import select

from app.store.opening import open_existing
from app.store.schema import jobs
from app.store.sqlite_engine import newest_sqlite
from tests.databases import SERVER
from tests.faults.evidence import job_faults
from tests.faults.people import KINDS, STEPS, TEXT
from tests.system import harness
from tests.system.harness import Installation, training_processes_of

T = TypeVar("T")

GRACE_SECONDS = 8.0
"""Within which a program that is asked to stop has ended: docker's own patience is ten."""
LEASE_SECONDS = 2
ENDLESS = 10**7
FROZEN_STEPS = 2 * STEPS
PATIENCE_SECONDS = 300.0
"""For everything that has no bar of its own, on a busy machine."""


def training(kind: str, steps: int) -> dict[str, Any]:
    """What `Installation.submit` takes, for one of the kinds of people.py."""
    return {"model": KINDS[kind]["model"], **KINDS[kind]["training"], "steps": steps}


def with_corpus(folder: Path, **environment: str) -> Installation:
    """A service alone, which has the text."""
    installation = Installation(folder)
    installation.environment |= environment
    installation.start_api()
    installation.upload(TEXT)
    return installation


def wait_for(what: str, probe: Callable[[], T | None]) -> T:
    """As the harness' own, with patience."""
    return harness.wait_for(what, probe, PATIENCE_SECONDS)


class Listener(threading.Thread):
    """A client of a stream that reads to its end, with a pause after each line: so that the longest text lasts."""

    def __init__(self, url: str, pause: float = 0.0, **how: Any) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._how = how
        self.pause = pause
        self.heard: list[str] = []
        self.broke_off: str | None = None

    def run(self) -> None:
        try:
            with httpx.stream("GET", self._url, timeout=60, trust_env=False, **self._how) as answer:
                for line in answer.iter_lines():
                    self.heard.append(line)
                    time.sleep(self.pause)
        except httpx.HTTPError as error:
            self.broke_off = repr(error)


@dataclass
class Stops:
    """Of so many requests to stop, the seconds until worker and service had ended."""

    worker_seconds: list[float] = field(default_factory=list)
    service_seconds: list[float] = field(default_factory=list)


def ask_to_stop(folder: Path, times: int) -> Stops:
    """A worker that trains and a service with open streams are asked to stop, again and again. Raises AssertionError.

    Each time: status 0 within 8 s, a resume point further than the last one, the attempt not counted as a crash, the
    job queued, and each open stream ended by its last event.
    """
    installation = with_corpus(folder, CHARSMITH_LEASE_SECONDS=str(LEASE_SECONDS))
    stops = Stops()
    try:
        job_id = installation.submit(**training("gru", ENDLESS))["id"]
        step = 0
        for number in range(times):
            what = f"request {number} to stop"
            step = _stop_once(installation, job_id, step, stops, what, impatient=number % 2 == 1)
    finally:
        installation.close()
    return stops


def _stop_once(
    installation: Installation, job_id: str, before: int, stops: Stops, what: str, *, impatient: bool
) -> int:
    """The step of the resume point that was stored. `impatient`: asked a second time at once, which changes nothing."""
    service = next(one for one in reversed(installation.programs) if one.poll() is None)
    worker = installation.start("worker")
    job = _wait_for_step(installation, job_id, before + 1)
    followed = Listener(f"{installation.url}/jobs/{job_id}/events")
    query = {"model": job["model_id"], "max_characters": 1_000_000}
    accept = {"Accept": "text/event-stream"}
    written = Listener(f"{installation.url}/generate", pause=0.01, params=query, headers=accept)
    for listener in (followed, written):
        listener.start()
    wait_for("both streams", lambda: (len(followed.heard) > 3 and len(written.heard) > 3) or None)
    for program, seconds in ((worker, stops.worker_seconds), (service, stops.service_seconds)):
        asked_at = time.monotonic()
        program.send_signal(signal.SIGTERM)
        if impatient:
            time.sleep(0.1)
            program.send_signal(signal.SIGTERM)
        code = program.wait(60)
        seconds.append(time.monotonic() - asked_at)
        assert code == 0, f"{what}: ended with {code}\n{installation.logs()}"
        assert seconds[-1] < GRACE_SECONDS, f"{what}: took {seconds[-1]:.1f} s\n{installation.logs()}"
        if program is worker:  # who follows is told at the next look, twice a second: the service may end before
            wait_for("the job to be told queued", lambda: _statuses(followed)[-1:] == ["queued"] or None)
    written.pause = 0
    for listener in (followed, written):
        listener.join(30)
    assert followed.broke_off is None, f"{what}: {followed.broke_off}"
    assert written.broke_off is None, f"{what}: {written.broke_off}"
    last = [line for line in written.heard if line][-2:]
    assert last[0] == "event: error", f"{what}: the last event was {last}"
    assert "shutting down" in last[1], f"{what}: the last event was {last}"
    assert _statuses(followed)[-1] == "queued", f"{what}: {followed.heard[-9:]}"
    step = _resume_step(installation, job_id, what)
    assert step > before, f"{what}: the resume point is of step {step}, the one before of {before}"
    installation.start_api()
    return step


def _statuses(followed: Listener) -> list[str]:
    """What a job's status was, one after the other, as its events tell."""
    told = [json.loads(line.removeprefix("data: ")) for line in list(followed.heard) if line.startswith("data: ")]
    return [one["status"] for one in told if "status" in one]


def _resume_step(installation: Installation, job_id: str, what: str) -> int:
    """Of the queued job, which has no crash counted."""
    database = open_existing(installation.database_url)
    try:
        with database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one()
        assert (row.status, row.crashes) == ("queued", 0), f"{what}: {row.status} with {row.crashes} crashes"
        return int(row.resume_step)
    finally:
        database.close()


def freeze(folder: Path, times: int) -> int:
    """A worker is frozen past its lease and thawed: how often it wrote nothing more. Raises AssertionError.

    Another worker takes the job over meanwhile and ends it, with the curve and weights of an undisturbed training.
    """
    installation = with_corpus(folder, CHARSMITH_LEASE_SECONDS=str(LEASE_SECONDS))
    frozen: list[int] = []
    try:
        installation.start("worker")
        undisturbed = installation.submit(**training("lstm", FROZEN_STEPS))
        undisturbed = installation.wait_for_status(undisturbed["id"], "succeeded", seconds=PATIENCE_SECONDS)
        for number in range(times):
            _freeze_once(installation, undisturbed, frozen, f"freeze {number}", with_child=number % 2 == 0)
        database = open_existing(installation.database_url)
        faults = job_faults(database)
        database.close()
        assert not faults, faults
    finally:
        for pid in frozen:
            _signal(pid, signal.SIGCONT)
        installation.close()
    return times


def _freeze_once(
    installation: Installation, undisturbed: dict[str, Any], frozen: list[int], what: str, with_child: bool
) -> None:
    first = next(one for one in reversed(installation.programs[1:]) if one.poll() is None)
    job_id = installation.submit(**training("lstm", FROZEN_STEPS))["id"]
    _wait_for_step(installation, job_id, 1)
    frozen[:] = [first.pid, *(training_processes_of(first.pid) if with_child else [])]
    wait_for(f"{what}: a moment between two writes", lambda: _frozen_between_writes(installation, frozen))
    second = installation.start("worker")
    _wait_for_attempt(installation, job_id, 2, what)
    for pid in frozen:
        _signal(pid, signal.SIGCONT)
    frozen.clear()
    done = installation.wait_for_status(job_id, "succeeded", seconds=PATIENCE_SECONDS)
    assert installation.losses(job_id) == installation.losses(undisturbed["id"]), f"{what}: another curve"
    weights = installation.weights(done, FROZEN_STEPS)
    assert weights == installation.weights(undisturbed, FROZEN_STEPS), f"{what}: other weights"
    log = next(path for path in installation.folder.glob(f"*-{installation.programs.index(first)}.log"))
    wait_for(
        f"{what}: the thawed worker to notice", lambda: f"{job_id}: attempt 1 lost its lease" in log.read_text() or None
    )
    assert first.poll() is None, f"{what}: the thawed worker has ended\n{installation.logs()}"
    second.terminate()
    assert second.wait(30) == 0, installation.logs()


def _frozen_between_writes(installation: Installation, pids: list[int]) -> bool | None:
    """Frozen within a write, a process holds SQLite's lock until it is thawed or killed: no job gets on meanwhile.

    PostgreSQL ends a transaction that stands still, so there any moment will do.
    """
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    if SERVER:
        return True
    module = newest_sqlite()
    probe = module.connect(installation.folder / "data" / "charsmith.db", timeout=0.5, isolation_level=None)
    try:
        probe.execute("BEGIN IMMEDIATE")
        probe.execute("ROLLBACK")
    except module.OperationalError:
        for pid in pids:
            _signal(pid, signal.SIGCONT)
        return None
    finally:
        probe.close()
    return True


def _wait_for_step(installation: Installation, job_id: str, step: int) -> dict[str, Any]:
    """The job, once it has a checkpoint at that step or later."""
    wait_for(f"step {step}", lambda: installation.latest_step(installation.job(job_id)) >= step or None)
    return installation.job(job_id)


def _wait_for_attempt(installation: Installation, job_id: str, attempt: int, what: str) -> None:
    wait_for(f"{what}: attempt {attempt}", lambda: installation.job(job_id)["attempt"] >= attempt or None)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def take_over(folder: Path, times: int) -> list[float]:
    """Seconds from a worker's death until its job runs again at another one, with the default lease."""
    installation = with_corpus(folder)
    del installation.environment["CHARSMITH_LEASE_SECONDS"]
    seconds = []
    try:
        installation.programs[0].terminate()
        installation.programs[0].wait(30)
        installation.start_api()
        workers = [installation.start("worker"), installation.start("worker")]
        installation.wait_until_ready(workers=2)
        job_id = installation.submit(**training("gru", ENDLESS))["id"]
        step = 0
        for number in range(times):
            installation.wait_for_status(job_id, "running", seconds=PATIENCE_SECONDS)
            _wait_for_step(installation, job_id, step + 1)  # a third death without progress would be a crash loop
            time.sleep(1.0 + number % 3)  # somewhere between two heartbeats
            job = installation.job(job_id)
            holder = next(one for one in workers if one.poll() is None and _trains(one.pid))
            holder.kill()
            died_at = time.monotonic()
            _wait_for_attempt(installation, job_id, job["attempt"] + 1, "a takeover")
            seconds.append(time.monotonic() - died_at)
            holder.wait()
            step = installation.latest_step(job)  # now: it may have stored one more at the last moment
            workers = [one for one in workers if one.poll() is None] + [installation.start("worker")]
    finally:
        installation.close()
    return seconds


def _trains(pid: int) -> bool:
    return bool(training_processes_of(pid))
