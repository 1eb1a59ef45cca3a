"""A database of its own for each test, and short ways to say what stands in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.store import claims, corpora, events, jobs
from app.store.database import Database
from app.store.opening import open_database
from app.store.trained_models import Checkpoint
from tests.databases import fresh_database, give_back

TEXT = "Now is the winter of our discontent\n" * 4


class Clock:
    """A wall clock that jumps when told to."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def jump(self, **by: float) -> None:
        self.time += timedelta(**by)


@dataclass
class Scene:
    """A database and what tests put into it."""

    database: Database
    clock: Clock
    url: str

    def corpus(self, name: str = "plays", text: str = TEXT) -> corpora.Corpus:
        return corpora.add_corpus(self.database, [text.encode()], name)[0]

    def job(self, name: str = "first", **more: Any) -> jobs.Job:
        more = {"corpus_id": self.corpus().id, "model": {"cell": "gru"}, "training": {"steps": 9}} | more
        return jobs.enqueue(self.database, name=name, **more)[0]

    def claim(self, worker: str = "worker-1") -> claims.Claim:
        claim = claims.claim_next(self.database, worker)
        assert claim is not None
        return claim

    def running(self, **more: Any) -> claims.Claim:
        self.job(**more)
        return self.claim()

    def save(self, claim: claims.Claim, step: int, **more: Any) -> Checkpoint | None:
        facts: dict[str, Any] = {
            "train_loss": 2.0,
            "val_loss": None,
            "checkpoint": f"weights {step}".encode(),
            "info": {"vocabulary_size": 30, "parameters": 1000},
            "resume_point": f"resume {step}".encode(),
        }
        return claims.record_saved(self.database, claim, step=step, **(facts | more))

    def status(self, job: jobs.Job) -> str:
        return jobs.get_job(self.database, job.id).status.value

    def told(self, job: jobs.Job, type_: str = "status") -> list[dict[str, Any]]:
        return [event.data for event in events.events_after(self.database, job.id, 0) if event.type == type_]

    def dump(self) -> dict[str, list[Any]]:
        """Everything that is stored, to show that nothing has changed."""
        from app.store.schema import metadata

        with self.database.read() as connection:
            return {
                table.name: [tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key))]
                for table in metadata.sorted_tables
            }


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    clock, url = Clock(), fresh_database(tmp_path)
    database = open_database(url, clock=clock)
    yield Scene(database, clock, url)
    database.close()
    give_back(url)
