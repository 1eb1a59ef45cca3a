"""The heartbeat: a lease is kept while the job moves, and a child that should end is ended, once and for one reason."""

import threading

import pytest

from app.processes import StopRequest
from app.store import claims, jobs
from app.store.claims import Claim, StaleWatch
from app.store.database import Database
from tests.worker.conftest import ScriptedChild
from worker.heartbeat import PAUSE_SECONDS, SLOW_STEP_FACTOR, START_SECONDS, Ending, Heartbeat

STALL_SECONDS = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A heartbeat that is beaten by hand, on a clock that is moved by hand."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self.clock = Clock()
        self.stopping = False
        self.child = ScriptedChild()
        self.heartbeat = Heartbeat(
            database,
            claim,
            stall_seconds=STALL_SECONDS,
            stop_requested=lambda: self.stopping,
            monotonic=self.clock,
        )

    def beat_after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.heartbeat.beat()


@pytest.fixture
def rig(database: Database, claim: Claim) -> Rig:
    made = Rig(database, claim)
    made.heartbeat.attach(made.child)
    made.heartbeat.settled()
    return made


def test_a_beating_heart_keeps_the_lease_and_a_still_one_loses_it(database: Database, rig: Rig) -> None:
    watch = StaleWatch(database, 13, monotonic=rig.clock)

    def look_for(seconds: int, *, beating: bool) -> list[str]:
        taken: list[str] = []
        for _ in range(seconds):
            rig.clock.now += 1
            if beating:
                rig.heartbeat.moved()
                rig.heartbeat.beat()
            taken += watch.release_stale()
        return taken

    assert look_for(40, beating=True) == []
    assert look_for(12, beating=False) == []
    assert len(look_for(2, beating=False)) == 1
    rig.heartbeat.beat()
    assert (rig.heartbeat.ending, rig.child.kills) == (Ending.LEASE_LOST, 1)


def test_a_cancelled_job_s_child_is_killed(database: Database, claim: Claim, rig: Rig) -> None:
    jobs.cancel_job(database, claim.job.id)
    rig.heartbeat.beat()
    assert (rig.heartbeat.ending, rig.child.kills, rig.child.pauses) == (Ending.CANCELLED, 1, 0)


def test_a_paused_job_s_child_is_asked_once_and_killed_only_when_it_takes_too_long(
    database: Database, claim: Claim, rig: Rig
) -> None:
    jobs.pause_job(database, claim.job.id)
    rig.heartbeat.beat()
    rig.beat_after(PAUSE_SECONDS - 1)
    assert (rig.heartbeat.ending, rig.child.pauses, rig.child.kills) == (Ending.PAUSED, 1, 0)
    rig.beat_after(1)
    assert (rig.heartbeat.ending, rig.child.kills) == (Ending.PAUSED, 1)


def test_a_cancel_overtakes_a_pause_that_is_under_way_but_no_pause_a_cancel(
    database: Database, claim: Claim, rig: Rig
) -> None:
    jobs.pause_job(database, claim.job.id)
    rig.heartbeat.beat()
    jobs.cancel_job(database, claim.job.id)
    rig.heartbeat.beat()
    assert (rig.heartbeat.ending, rig.child.kills) == (Ending.CANCELLED, 1)
    rig.stopping = True
    rig.heartbeat.beat()
    assert (rig.heartbeat.ending, rig.child.pauses) == (Ending.CANCELLED, 1)


def test_a_stopping_worker_asks_its_child_for_a_resume_point(rig: Rig) -> None:
    rig.stopping = True
    rig.heartbeat.beat()
    assert (rig.heartbeat.ending, rig.child.pauses, rig.child.kills) == (Ending.STOPPING, 1, 0)


def test_where_the_worker_stood_still_itself_there_was_no_long_step_and_no_hung_one(rig: Rig) -> None:
    for gap in (1, 1, 600):
        rig.clock.now += gap
        rig.heartbeat.look()
        rig.heartbeat.beat()
        rig.heartbeat.moved()
    assert rig.heartbeat.ending is None
    rig.beat_after(STALL_SECONDS + 1)
    assert rig.heartbeat.ending is Ending.STALLED


def test_a_child_that_shows_no_sign_of_life_is_killed_after_the_stall_limit(rig: Rig) -> None:
    rig.beat_after(STALL_SECONDS - 1)
    assert rig.heartbeat.ending is None
    rig.beat_after(2)
    assert (rig.heartbeat.ending, rig.child.kills) == (Ending.STALLED, 1)


def test_until_its_first_checkpoint_a_child_may_have_things_compiled(database: Database, claim: Claim) -> None:
    rig = Rig(database, claim)
    rig.heartbeat.attach(rig.child)
    for _ in range(2):
        rig.beat_after(START_SECONDS - 1)
        assert rig.heartbeat.ending is None
        rig.heartbeat.moved()
    rig.heartbeat._longest_gap = 0.0  # of the limit by the longest step speaks the next test
    rig.beat_after(START_SECONDS + 1)
    assert rig.heartbeat.ending is Ending.STALLED


def test_slow_steps_raise_the_stall_limit_and_a_slow_start_does_not(rig: Rig) -> None:
    rig.clock.now += 1000
    rig.heartbeat.moved()
    rig.clock.now += 10
    rig.heartbeat.moved()
    rig.beat_after(SLOW_STEP_FACTOR * 10 - 1)
    assert rig.heartbeat.ending is None
    rig.beat_after(2)
    assert rig.heartbeat.ending is Ending.STALLED


def test_a_child_that_starts_after_its_job_was_cancelled_is_killed_at_once(database: Database, claim: Claim) -> None:
    rig = Rig(database, claim)
    jobs.cancel_job(database, claim.job.id)
    rig.heartbeat.beat()
    rig.heartbeat.attach(rig.child)
    assert rig.child.kills == 1


def test_a_pause_waits_for_a_child_that_is_not_there_yet_and_gives_it_its_full_time(
    database: Database, claim: Claim
) -> None:
    rig = Rig(database, claim)
    jobs.pause_job(database, claim.job.id)
    rig.heartbeat.beat()
    rig.clock.now += 2 * PAUSE_SECONDS
    rig.heartbeat.attach(rig.child)
    rig.beat_after(PAUSE_SECONDS - 1)
    assert (rig.child.pauses, rig.child.kills) == (1, 0)
    rig.beat_after(1)
    rig.beat_after(1)
    assert rig.child.kills == 1, "killed once, not at every beat from then on"


def test_while_the_worker_stores_something_large_its_child_need_show_no_life(rig: Rig) -> None:
    with rig.heartbeat.patience():
        rig.beat_after(10 * STALL_SECONDS)
    rig.beat_after(STALL_SECONDS - 1)
    assert rig.heartbeat.ending is None
    rig.beat_after(2)
    assert rig.heartbeat.ending is Ending.STALLED


def test_while_the_end_is_recorded_the_lease_is_kept_and_no_child_is_missed_or_told_anything(
    database: Database, claim: Claim, rig: Rig
) -> None:
    rig.heartbeat.detach()
    rig.beat_after(10 * STALL_SECONDS)
    assert rig.heartbeat.ending is None
    jobs.pause_job(database, claim.job.id)
    rig.heartbeat.beat()
    claims.release(database, claim)
    rig.heartbeat.beat()
    assert (rig.heartbeat.ending, rig.child.pauses, rig.child.kills) == (Ending.LEASE_LOST, 0, 0)


def test_a_beat_that_fails_is_not_the_last_one(
    database: Database, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[int] = []
    enough = threading.Event()

    def fail(*_: object) -> None:
        beats.append(1)
        if len(beats) == 3:
            enough.set()
        raise OSError("disk I/O error")

    monkeypatch.setattr(claims, "renew", fail)
    heartbeat = Heartbeat(database, claim, stall_seconds=60, stop_requested=lambda: False, beat_seconds=0.0)
    heartbeat.start()
    assert enough.wait(30)
    heartbeat.end()


def test_a_stop_is_noticed_between_two_beats(database: Database, claim: Claim) -> None:
    stop = StopRequest()
    child = ScriptedChild()
    heartbeat = Heartbeat(database, claim, stall_seconds=60, stop_requested=stop.is_set, beat_seconds=3600)
    heartbeat.attach(child)
    heartbeat.start()
    stop.set()
    assert child.paused.wait(30)
    heartbeat.end()
    stop.close()


def test_a_stolen_job_is_noticed_at_the_next_beat(database: Database, claim: Claim, rig: Rig) -> None:
    claims.release(database, claim)
    assert claims.claim_next(database, "worker-2") is not None
    rig.heartbeat.beat()
    assert (rig.heartbeat.ending, rig.child.kills) == (Ending.LEASE_LOST, 1)
