"""The worker's side: claims, fences, crashes, and what a person's wish does to them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from sqlalchemy import make_url, text, update

from app.store import claims
from app.store.claims import MAX_CRASHES, StaleWatch, claim_next, finish, release, renew
from app.store.errors import DatabaseBusy, DatabaseUnreachable, DiskFull, LeaseLost
from app.store.job_state import JobStatus
from app.store.jobs import cancel_job, delete_job, get_job, pause_job, resume_job
from app.store.metrics import read_metrics
from app.store.opening import open_database
from app.store.schema import blob_chunks
from tests.databases import command, postgres_only, sqlite_only
from tests.store.test_postgres import cut_off


def test_the_oldest_waiting_job_is_claimed_first(scene: Any) -> None:
    made = [scene.job(name=f"job-{number}") for number in range(3)]
    pause_job(scene.database, made[0].id)
    first, second = scene.claim("one"), scene.claim("two")
    assert [first.job.id, second.job.id] == [made[1].id, made[2].id]
    assert claim_next(scene.database, "three") is None
    assert (first.attempt, first.job.status, first.job.worker) == (1, JobStatus.RUNNING, "one")
    assert first.job.started_at == scene.clock()
    assert scene.told(first.job) == [{"status": "queued", "attempt": 0}, {"status": "running", "attempt": 1}]


def test_each_claim_is_a_new_attempt_and_the_first_start_stays(scene: Any) -> None:
    first = scene.running()
    release(scene.database, first)
    scene.clock.jump(minutes=5)
    second = scene.claim("worker-2")
    assert (second.attempt, second.job.worker) == (2, "worker-2")
    assert second.job.started_at == first.job.started_at


def test_renewing_tells_the_worker_what_is_wanted(scene: Any) -> None:
    claim = scene.running()
    assert renew(scene.database, claim) == claims.Wanted(cancel=False, pause=False)
    pause_job(scene.database, claim.job.id)
    assert renew(scene.database, claim) == claims.Wanted(cancel=False, pause=True)
    cancel_job(scene.database, claim.job.id)
    assert renew(scene.database, claim) == claims.Wanted(cancel=True, pause=True)


FENCED: dict[str, Any] = {
    "renew": renew,
    "record_started": lambda d, c: claims.record_started(d, c, {"steps": 5}),
    "record_progress": lambda d, c: claims.record_progress(d, c, {"step": 1, "train_loss": 1.0}),
    "record_evaluation": lambda d, c: claims.record_evaluation(d, c, 1, 1.0, True),
    "record_sample": lambda d, c: claims.record_sample(d, c, 1, "to be"),
    "record_saved": lambda d, c: claims.record_saved(
        d,
        c,
        step=1,
        train_loss=1.0,
        val_loss=1.0,
        checkpoint=b"weights",
        info={"vocabulary_size": 3, "parameters": 4},
        resume_point=b"resume",
    ),
    "finish succeeded": lambda d, c: finish(d, c, JobStatus.SUCCEEDED),
    "finish failed": lambda d, c: finish(d, c, JobStatus.FAILED, {"code": "x"}),
    "finish cancelled": lambda d, c: finish(d, c, JobStatus.CANCELLED),
    "release": release,
    "release crashed": lambda d, c: release(d, c, crashed=True),
    "drop_after": lambda d, c: claims.drop_after(d, c, 0),
    "read_resume_point": claims.read_resume_point,
}


@pytest.mark.parametrize("write", FENCED.values(), ids=FENCED.keys())
@pytest.mark.parametrize("fate", ["taken over", "released", "paused", "finished", "cancelled", "deleted"])
def test_a_stale_worker_cannot_write_anything(scene: Any, write: Any, fate: str) -> None:
    claim = scene.running()
    scene.save(claim, 3)
    claims.record_progress(scene.database, claim, {"step": 3, "train_loss": 1.5})
    if fate == "finished":
        finish(scene.database, claim, JobStatus.SUCCEEDED)
    else:
        if fate in {"cancelled", "deleted"}:
            cancel_job(scene.database, claim.job.id)
        release(scene.database, claim, pause=fate == "paused")
    if fate == "taken over":
        scene.claim("worker-2")
    if fate == "deleted":
        delete_job(scene.database, claim.job.id)
    before = scene.dump()
    with pytest.raises(LeaseLost, match="attempt 1 of"):
        write(scene.database, claim)
    assert scene.dump() == before


@pytest.mark.parametrize("write", [w for name, w in FENCED.items() if not name.startswith(("finish", "release"))])
def test_every_write_of_a_worker_is_a_sign_of_life(scene: Any, write: Any) -> None:
    claim = scene.running()

    def heartbeat() -> int:
        with scene.database.read() as connection:
            return int(connection.execute(text("SELECT heartbeat FROM jobs")).scalar_one())

    before = heartbeat()
    write(scene.database, claim)
    assert heartbeat() > before


@pytest.mark.parametrize(
    ("status", "error"),
    [(JobStatus.SUCCEEDED, None), (JobStatus.FAILED, {"code": "diverged", "detail": "…"}), (JobStatus.CANCELLED, None)],
)
def test_a_finished_job_says_when_and_why(scene: Any, status: JobStatus, error: dict[str, Any] | None) -> None:
    claim = scene.running()
    scene.clock.jump(minutes=1)
    finish(scene.database, claim, status, error)
    job = get_job(scene.database, claim.job.id)
    assert (job.status, job.error, job.finished_at, job.worker) == (status, error, scene.clock(), None)
    assert scene.told(job)[-1] == {"status": status.value, "attempt": 1} | ({"error": error} if error else {})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (JobStatus.QUEUED, None),
        (JobStatus.PAUSED, None),
        (JobStatus.FAILED, None),
        (JobStatus.SUCCEEDED, {"code": "x"}),
    ],
)
def test_finishing_with_what_is_no_end_is_our_own_mistake(scene: Any, status: JobStatus, error: Any) -> None:
    claim = scene.running()
    with pytest.raises(ValueError, match="cannot finish"):
        finish(scene.database, claim, status, error)


def test_a_job_that_got_to_its_end_has_succeeded_though_a_cancel_raced_it(scene: Any) -> None:
    claim = scene.running()
    cancel_job(scene.database, claim.job.id)
    finish(scene.database, claim, JobStatus.SUCCEEDED)
    job = get_job(scene.database, claim.job.id)
    assert (job.status, job.cancel_requested) == (JobStatus.SUCCEEDED, False)


@pytest.mark.parametrize("crashed", [False, True])
def test_giving_a_job_back_honours_what_is_wanted(scene: Any, crashed: bool) -> None:
    assert release(scene.database, scene.running(name="plain"), crashed=crashed) is JobStatus.QUEUED
    wanted = scene.claim()
    pause_job(scene.database, wanted.job.id)
    assert release(scene.database, wanted, crashed=crashed) is JobStatus.PAUSED
    resume_job(scene.database, wanted.job.id)
    both = scene.claim()
    pause_job(scene.database, both.job.id)
    cancel_job(scene.database, both.job.id)
    assert release(scene.database, both, crashed=crashed) is JobStatus.CANCELLED
    job = get_job(scene.database, both.job.id)
    assert (job.cancel_requested, job.pause_requested, job.finished_at) == (False, False, scene.clock())


def test_a_worker_may_pause_a_job(scene: Any) -> None:
    claim = scene.running()
    assert release(scene.database, claim, pause=True) is JobStatus.PAUSED
    assert claim_next(scene.database, "worker-2") is None


def test_three_crashes_in_a_row_give_a_job_up(scene: Any) -> None:
    job = scene.job()
    for _ in range(MAX_CRASHES - 1):
        assert release(scene.database, scene.claim(), crashed=True) is JobStatus.QUEUED
    assert release(scene.database, scene.claim(), crashed=True) is JobStatus.FAILED
    failed = get_job(scene.database, job.id)
    assert failed.error is not None
    assert (failed.error["code"], failed.attempt) == ("crash_loop", 3)


def test_two_in_a_row_are_enough_where_memory_was_lacking(scene: Any) -> None:
    job = scene.job()
    assert release(scene.database, scene.claim(), crashed=True, out_of_memory=True) is JobStatus.QUEUED
    claim = scene.claim()
    scene.save(claim, 1)
    assert release(scene.database, claim, crashed=True, out_of_memory=True) is JobStatus.QUEUED, "it got on"
    assert release(scene.database, scene.claim(), crashed=True, out_of_memory=True) is JobStatus.FAILED
    failed = get_job(scene.database, job.id)
    assert failed.error is not None
    assert (failed.error["code"], failed.attempt) == ("out_of_memory", 3)


def test_progress_stored_between_crashes_and_clean_releases_keep_a_job_alive(scene: Any) -> None:
    scene.job()
    for round_ in range(3):
        for _ in range(MAX_CRASHES - 1):
            release(scene.database, scene.claim(), crashed=True)
        for _ in range(MAX_CRASHES):
            release(scene.database, scene.claim())
        claim = scene.claim()
        scene.save(claim, round_)
        assert release(scene.database, claim, crashed=True) is JobStatus.QUEUED
        claim = scene.claim()
        scene.save(claim, round_)
        release(scene.database, claim)


def test_a_resume_point_is_read_back_and_goes_on_in_the_next_attempt(scene: Any) -> None:
    claim = scene.running()
    assert claim.resume_blob is None
    assert claims.read_resume_point(scene.database, claim) is None
    scene.save(claim, 1)
    scene.save(claim, 2, resume_point=b"x" * 3_000_000)
    release(scene.database, claim, crashed=True)
    again = scene.claim()
    assert again.resume_blob is not None
    assert claims.read_resume_point(scene.database, again) == b"x" * 3_000_000


def test_a_damaged_resume_point_is_given_up_and_the_job_starts_anew(
    scene: Any, caplog: pytest.LogCaptureFixture
) -> None:
    claim = scene.running()
    scene.save(claim, 1)
    with scene.database.write() as connection:
        connection.execute(update(blob_chunks).where(blob_chunks.c.data == b"resume 1").values(data=b"0"))
    assert claims.read_resume_point(scene.database, claim) is None
    assert "starts anew" in caplog.text
    assert claims.read_resume_point(scene.database, claim) is None
    release(scene.database, claim)
    assert scene.claim().resume_blob is None
    assert len(scene.dump()["blobs"]) == 2


def test_going_on_from_a_resume_point_drops_later_metrics_but_no_events(scene: Any) -> None:
    claim = scene.running()
    for step, loss in ((10, 2.0), (20, 1.5), (30, 1.0)):
        claims.record_progress(scene.database, claim, {"step": step, "train_loss": loss})
        claims.record_evaluation(scene.database, claim, step, loss, best=True)
    told = len(scene.told(claim.job, "progress"))
    claims.drop_after(scene.database, claim, 20)
    assert [row.step for row in read_metrics(scene.database, claim.job.id)] == [10, 20]
    assert len(scene.told(claim.job, "progress")) == told


class Ticker:
    """A monotonic clock."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def raising(error: Exception) -> NoReturn:
    raise error


def look_for(watch: StaleWatch, ticker: Ticker, seconds: float) -> list[str]:
    """What a watch that looks every second releases in that time."""
    released = []
    for _ in range(int(seconds)):
        ticker.seconds += 1
        released += watch.release_stale()
    return released


def test_a_job_whose_worker_shows_no_life_for_a_lease_is_queued_again(scene: Any) -> None:
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    assert watch.release_stale() == []
    assert look_for(watch, ticker, 12) == []
    assert look_for(watch, ticker, 1) == [claim.job.id]
    assert scene.status(claim.job) == "queued"
    assert look_for(watch, ticker, 60) == []
    with pytest.raises(LeaseLost):
        renew(scene.database, claim)


def test_a_worker_that_renews_in_time_keeps_its_job(scene: Any) -> None:
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    for _ in range(10):
        assert look_for(watch, ticker, 12) == []
        renew(scene.database, claim)
    assert look_for(watch, ticker, 13) == []
    assert look_for(watch, ticker, 1) == [claim.job.id]


def test_a_new_attempt_has_a_new_lease(scene: Any) -> None:
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    look_for(watch, ticker, 12)
    release(scene.database, claim)
    scene.claim("worker-2")
    assert look_for(watch, ticker, 13) == []
    assert look_for(watch, ticker, 1) == [claim.job.id]


@pytest.mark.parametrize("jump", [{"hours": 1}, {"hours": -1}, {"days": 3650}, {"days": -3650}])
def test_jumps_of_the_wall_clock_neither_steal_nor_strand_a_job(scene: Any, jump: dict[str, float]) -> None:
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    watch.release_stale()
    scene.clock.jump(**jump)
    assert look_for(watch, ticker, 12) == []
    renew(scene.database, claim)
    assert look_for(watch, ticker, 13) == []
    assert look_for(watch, ticker, 1) == [claim.job.id]
    assert scene.claim("worker-2").attempt == 2


def test_a_watch_that_was_stopped_itself_does_not_count_that_time(scene: Any) -> None:
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    watch.release_stale()
    ticker.seconds += 3600
    assert watch.release_stale() == []
    renew(scene.database, claim)
    assert look_for(watch, ticker, 10) == []


def test_a_dead_workers_job_is_cancelled_when_that_was_wanted(scene: Any) -> None:
    claim, ticker = scene.running(), Ticker()
    cancel_job(scene.database, claim.job.id)
    watch = StaleWatch(scene.database, 13, ticker)
    watch.release_stale()
    assert look_for(watch, ticker, 13) == [claim.job.id]
    assert scene.status(claim.job) == "cancelled"


def test_workers_that_die_again_and_again_make_a_crash_loop(scene: Any) -> None:
    job, ticker = scene.job(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    for _ in range(MAX_CRASHES):
        scene.claim()
        watch.release_stale()
        look_for(watch, ticker, 13)
    assert scene.status(job) == "failed"


def test_two_watches_count_one_crash(scene: Any) -> None:
    claim, ticker = scene.running(), Ticker()
    watches = [StaleWatch(scene.database, 13, ticker) for _ in range(2)]
    released = []
    for _ in range(20):
        ticker.seconds += 1
        for watch in watches:
            released += watch.release_stale()
    assert released == [claim.job.id]
    assert scene.told(claim.job)[-1] == {"status": "queued", "attempt": 1}


def test_a_watch_that_cannot_write_takes_no_silence_for_death(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps it from writing, a full disk say, kept the worker from beating."""
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    look_for(watch, ticker, 13)
    with monkeypatch.context() as full:
        full.setattr(scene.database, "write", lambda: raising(DiskFull()))
        with pytest.raises(DiskFull):
            look_for(watch, ticker, 1)
    assert look_for(watch, ticker, 13) == []
    assert scene.status(claim.job) == "running"
    assert look_for(watch, ticker, 1) == [claim.job.id]


def test_a_worker_that_shows_life_at_the_last_moment_keeps_its_job(scene: Any) -> None:
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    watch.release_stale()
    look_for(watch, ticker, 12)
    seen = watch._marks()
    renew(scene.database, claim)
    watch._marks = lambda: seen  # type: ignore[method-assign]
    assert look_for(watch, ticker, 2) == []
    assert scene.status(claim.job) == "running"


class MovableClock(Ticker):
    """The real monotonic clock, which a test may set forward."""

    def __call__(self) -> float:
        return time.monotonic() + self.seconds


@contextmanager
def locked(url: str, seconds: float) -> Iterator[None]:
    """Somebody else holds the lock that writers need, from now on for so long."""
    held = threading.Event()

    def hold() -> None:
        other = open_database(url)
        with other.write() as connection:
            if other.dialect == "postgresql":
                connection.execute(text("LOCK TABLE jobs IN SHARE MODE"))  # as CREATE INDEX does
            held.set()
            time.sleep(seconds)
        other.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    yield
    holder.join(30)


@pytest.mark.parametrize("quiet_seconds", [6, 12])
def test_a_watch_that_waited_for_the_lock_takes_no_silence_for_death(scene: Any, quiet_seconds: int) -> None:
    """The worker's beat waited for it as well, and who gets it first is chance."""
    claim, ticker = scene.running(), MovableClock()
    watch = StaleWatch(scene.database, 13, ticker)
    watch.release_stale()
    assert look_for(watch, ticker, quiet_seconds) == []
    with locked(scene.url, 4), pytest.raises(DatabaseBusy):
        look_for(watch, ticker, 1)
    assert look_for(watch, ticker, 12) == []
    assert scene.status(claim.job) == "running"
    assert look_for(watch, ticker, 2) == [claim.job.id]


def test_a_watch_that_could_not_read_takes_no_silence_for_death(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was away for a while: workers could not reach it either, and may need some seconds more."""
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    assert look_for(watch, ticker, 12) == []
    with monkeypatch.context() as away:
        away.setattr(scene.database, "read", lambda: raising(DatabaseUnreachable("the server is away")))
        for _ in range(60):
            with pytest.raises(DatabaseUnreachable):
                look_for(watch, ticker, 1)
    assert look_for(watch, ticker, 13) == []
    assert look_for(watch, ticker, 1) == [claim.job.id]


@postgres_only
def test_a_watch_takes_no_silence_for_death_while_the_server_takes_no_writes(scene: Any) -> None:
    """A standby, until it is promoted: it is read from, and workers cannot show life."""
    claim, ticker = scene.running(), Ticker()
    watch = StaleWatch(scene.database, 13, ticker)
    assert look_for(watch, ticker, 6) == []
    server_takes_writes(scene.url, "on")
    with pytest.raises(DatabaseUnreachable):
        look_for(watch, ticker, 6)
    server_takes_writes(scene.url, "off")
    assert look_for(watch, ticker, 12) == []
    assert scene.status(claim.job) == "running"
    assert look_for(watch, ticker, 2) == [claim.job.id]


def server_takes_writes(url: str, read_only: str) -> None:
    name = make_url(url).database
    command(
        url,
        "SET default_transaction_read_only = off",
        f'ALTER DATABASE "{name}" SET default_transaction_read_only = {read_only}',
    )
    cut_off(url)


@sqlite_only
def test_a_job_that_cannot_be_taken_over_keeps_no_other_from_it(scene: Any, caplog: pytest.LogCaptureFixture) -> None:
    scene.job(name="damaged")
    damaged, ticker = scene.claim(), Ticker()
    other = scene.running(name="whole")
    with scene.database.write() as connection:
        connection.execute(text("UPDATE jobs SET model = '{' WHERE id = :id"), {"id": damaged.job.id})
    watch = StaleWatch(scene.database, 13, ticker)
    assert look_for(watch, ticker, 14) == [other.job.id]
    assert f"{damaged.job.id} showed no life, and cannot be taken over" in caplog.text
    assert look_for(watch, ticker, 12) == []
