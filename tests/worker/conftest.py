"""A real store with one claimed job, and a training child that follows a script."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.store import claims, corpora, jobs
from app.store.claims import Claim
from app.store.database import Database
from app.store.opening import open_database
from models.config import ModelConfig, TrainingConfig
from tests.databases import SERVER, fresh_database, give_back
from worker.events import Event, Finished

TEXT = b"to be, or not to be, that is the question\n" * 50


@dataclass
class ScriptedChild:
    """Yields its script; an exception in it is raised. Counts what it is asked."""

    script: list[Event | Exception] = field(default_factory=list)
    pauses: int = 0
    paused: threading.Event = field(default_factory=threading.Event)
    kills: int = 0
    closed: bool = False

    def events(self) -> Iterator[Event]:
        for item in self.script:
            if isinstance(item, Exception):
                raise item
            yield item
            if isinstance(item, Finished):
                return

    def request_pause(self) -> None:
        self.pauses += 1
        self.paused.set()

    def kill(self) -> None:
        self.kills += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    url = fresh_database(tmp_path)
    if SERVER:  # for programs that a test starts
        monkeypatch.setenv("CHARSMITH_DATABASE_URL", url)
    opened = open_database(url)
    yield opened
    opened.close()
    give_back(url)


@pytest.fixture
def job_id(database: Database) -> str:
    corpus = corpora.add_corpus(database, [TEXT], "hamlet").corpus
    job, _ = jobs.enqueue(
        database,
        name="hamlet",
        corpus_id=corpus.id,
        model=ModelConfig().as_dict(),
        training=TrainingConfig(steps=10).as_dict(),
        queue_limit=10,
    )
    return job.id


@pytest.fixture
def claim(database: Database, job_id: str) -> Claim:
    made = claims.claim_next(database, "worker-1")
    assert made is not None
    assert made.job.id == job_id
    return made
