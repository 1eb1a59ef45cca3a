"""Whether the service lives and can work, and which workers it sees."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.settings import Settings
from app.store import claims, jobs, workers
from app.store.blobs import blob_bytes, write_blob
from app.store.errors import DatabaseBusy, NotFound
from app.store.job_state import JobStatus
from app.store.opening import open_database
from app.watch import BLOB_GRACE, Watch
from tests.api.service import Service, assert_problem


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(service: Service, clock: Clock) -> Watch:
    """A watch that looks when it is told to."""
    return Watch(service.database, lease_seconds=10, monotonic=clock)


def test_a_service_without_workers_is_alive_and_ready(service: Service) -> None:
    assert service.http.get("/healthz").json() == {"status": "alive"}
    answer = service.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": True, "generation": True, "workers": []}


def test_a_dead_generation_process_makes_it_unready(service: Service) -> None:
    service.generation.alive = False

    problem = assert_problem(service.http.get("/readyz"), 503)

    assert (problem["code"], problem["database"], problem["generation"]) == ("not_ready", True, False)
    assert service.http.get("/healthz").status_code == 200


def test_an_unusable_database_makes_it_unready(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise DatabaseBusy(15)

    monkeypatch.setattr("app.routes.health.list_workers", fail)

    assert assert_problem(service.http.get("/readyz"), 503)["database"] is False


def test_a_worker_that_died_before_the_service_started_is_not_taken_for_alive(
    service: Service, watch: Watch, clock: Clock
) -> None:
    workers.announce(service.database, "w1", "cuda")
    for _ in range(3):
        watch.look()
        clock.now += 1
    assert watch.workers_seen() == []
    workers.announce(service.database, "w1", "cuda")
    watch.look()
    assert [seen.id for seen in watch.workers_seen()] == ["w1"]


def test_a_worker_is_seen_as_long_as_its_heartbeat_moves(service: Service, watch: Watch, clock: Clock) -> None:
    watch.look()
    workers.announce(service.database, "w1", "cuda")
    watch.look()
    clock.now += 4
    watch.look()
    assert [(seen.id, seen.device, seen.seconds_since_heartbeat) for seen in watch.workers_seen()] == [
        ("w1", "cuda", 4)
    ]

    workers.announce(service.database, "w1", "cuda")
    watch.look()
    assert watch.workers_seen()[0].seconds_since_heartbeat == 0
    clock.now += 10
    watch.look()
    assert watch.workers_seen() == []


def test_the_running_service_reports_a_worker_that_announces_itself(own_service: Service) -> None:
    workers.announce(own_service.database, "w1", "cpu", memory_bytes=2**34)
    watch: Watch = own_service.app.state.watch
    watch.look()

    seen = own_service.http.get("/readyz").json()["workers"]

    assert [(worker["id"], worker["device"], worker["memory_bytes"]) for worker in seen] == [("w1", "cpu", 2**34)]
    assert seen[0]["seconds_since_heartbeat"] < 13


def test_a_job_of_a_worker_that_stands_still_is_queued_again(service: Service, watch: Watch, clock: Clock) -> None:
    job = service.enqueue()
    service.claim()
    watch.look()
    for _ in range(3):
        clock.now += 4
        watch.look()

    assert jobs.get_job(service.database, job.id).status is JobStatus.QUEUED


def test_a_job_whose_heartbeat_moves_is_left_alone(service: Service, watch: Watch, clock: Clock) -> None:
    job = service.enqueue()
    claim = service.claim()
    for _ in range(5):
        watch.look()
        clock.now += 6
        claims.renew(service.database, claim)
    watch.look()

    assert jobs.get_job(service.database, job.id).status is JobStatus.RUNNING


def test_the_watch_sweeps_what_was_uploaded_and_never_named(
    data_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.watch.SWEEP_EVERY", 3)
    now = [datetime(2030, 1, 1, tzinfo=UTC)]
    database = open_database(Settings(data_dir=data_dir).resolved_database_url, clock=lambda: now[0])
    watch = Watch(database, lease_seconds=10, monotonic=clock)
    abandoned = write_blob(database, [b"half an upload"])
    watch.look()
    assert blob_bytes(database, abandoned.id) == 14, "it may still be named"
    now[0] += BLOB_GRACE + timedelta(seconds=1)
    for _ in range(2):
        watch.look()
    assert blob_bytes(database, abandoned.id) == 14, "it is not looked for at every look"
    watch.look()
    with pytest.raises(NotFound):
        blob_bytes(database, abandoned.id)
    database.close()
