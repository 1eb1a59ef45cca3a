"""An idle worker's wait ends when a job is queued, and at a stop, whether anybody can be listened to or not."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.processes import StopRequest
from app.store import claims, corpora, jobs
from app.store.database import Database
from app.store.errors import DatabaseUnreachable
from app.store.job_state import JobStatus
from app.store.opening import open_database
from models.config import ModelConfig, TrainingConfig
from tests.databases import empty_database, postgres_only
from tests.store.test_postgres import cut_off
from tests.worker.conftest import TEXT
from worker import rest as rest_module
from worker.rest import Rest

LONG = 3600.0
PATIENCE_SECONDS = 60.0


def queue_a_job(database: Database) -> None:
    corpus = corpora.add_corpus(database, [TEXT], "hamlet").corpus
    settings = {"model": ModelConfig().as_dict(), "training": TrainingConfig(steps=1).as_dict()}
    jobs.enqueue(database, name="hamlet", corpus_id=corpus.id, **settings)


def waits_until(rest: Rest, act: Callable[[], Any]) -> bool:
    """Whether waiting goes on until `act` was called, and ends then."""
    rest.wait(LONG)  # over at once: something may have come before anybody listened
    waiting = threading.Thread(target=rest.wait, args=(LONG,), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    act()
    waiting.join(PATIENCE_SECONDS)
    return not waiting.is_alive()


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    made = StopRequest()
    yield made
    made.close()


def test_a_job_that_is_queued_ends_the_wait(database: Database, stop: StopRequest) -> None:
    rest = Rest(database, stop)
    assert waits_until(rest, lambda: queue_a_job(database))
    rest.end()


def test_a_job_that_is_queued_before_anybody_listens_is_not_missed(database: Database, stop: StopRequest) -> None:
    rest = Rest(database, stop)
    queue_a_job(database)
    rest.wait(LONG)
    claim = claims.claim_next(database, "worker-1")
    assert claim is not None
    rest.end()
    claims.finish(database, claim, JobStatus.SUCCEEDED)
    rest.wait(LONG)  # listens anew, and has the worker look once
    rest.end()


@postgres_only
def test_a_wait_outlives_its_server_and_listens_anew(tmp_path: Path, stop: StopRequest) -> None:
    url = empty_database(tmp_path)
    with closing(open_database(url)) as database:
        rest, ended = Rest(database, stop), threading.Event()
        rest.wait(LONG)

        def wait() -> None:
            rest.wait(5.0)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        cut_off(url)
        assert ended.wait(PATIENCE_SECONDS), "it raises nothing"
        assert waits_until(rest, lambda: queue_a_job(database))
        rest.end()


def test_a_stop_ends_the_wait(database: Database, stop: StopRequest) -> None:
    rest = Rest(database, stop)
    assert waits_until(rest, stop.set)
    rest.end()


def test_a_stop_ends_the_wait_where_nobody_can_be_listened_to(
    database: Database, stop: StopRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def away(database: Database) -> Iterator[None]:
        raise DatabaseUnreachable("away")
        yield

    monkeypatch.setattr(rest_module, "listening", away)
    rest = Rest(database, stop)
    waiting = threading.Thread(target=rest.wait, args=(LONG,), daemon=True)
    waiting.start()
    stop.set()
    waiting.join(PATIENCE_SECONDS)
    assert not waiting.is_alive()
    rest.end()
