"""A worker whose executor has several places, fewer as time goes on, or none: how many jobs it runs at once."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.processes import StopRequest
from app.settings import Settings
from app.store import corpora, jobs, workers
from app.store.database import Database
from models.config import ModelConfig, TrainingConfig
from tests.system.harness import wait_for
from tests.worker.conftest import TEXT
from worker import attempts, runner
from worker.events import Event, Finished, Started
from worker.executor import NoPlace, Training
from worker.launch import ChildCrashed, TrainingTask
from worker.runner import Runner

STARTED = Started(0, 10, 1234, 20, 1900, 200, "cpu", "float32")


class Held:
    """A training that ends when it is told to."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self._killed = False

    def events(self) -> Iterator[Event]:
        yield STARTED
        self.may_end.wait(60)
        if self._killed:
            raise ChildCrashed(-9)
        yield Finished(10, "budget", None, None)

    def request_pause(self) -> None:
        self.kill()

    def kill(self) -> None:
        self._killed = True
        self.may_end.set()

    def close(self) -> None:
        self.may_end.set()


class Places:
    """An executor with as many places as a test says."""

    device, memory_bytes, threads = "cpu", 2**30, 1

    def __init__(self, number: int) -> None:
        self.number = number
        self.begun: list[Held] = []
        self.refusal: Exception | None = None

    def places(self) -> int:
        return self.number

    def works(self) -> bool:
        return True

    def is_lost(self) -> bool:
        return False

    def rest(self) -> None:
        assert all(training.may_end.is_set() for training in self.begun), "nothing runs"

    def close(self) -> None:
        return

    def start(self, _: TrainingTask) -> Training:
        if self.refusal is not None:
            raise self.refusal
        self.begun.append(Held())
        return self.begun[-1]


class Scene:
    """A running worker and five jobs."""

    def __init__(self, database: Database, folder: Path, places: Places) -> None:
        self.database, self.places = database, places
        self.stop = StopRequest()
        corpus = corpora.add_corpus(database, [TEXT], "hamlet").corpus
        model, training = ModelConfig().as_dict(), TrainingConfig(steps=10).as_dict()
        self.jobs = [
            jobs.enqueue(database, name=f"job-{n}", corpus_id=corpus.id, model=model, training=training)[0].id
            for n in range(5)
        ]
        self.runner = Runner(database, Settings(data_dir=folder), "worker-1", places, self.stop)
        self.thread = threading.Thread(target=self.runner.run)
        self.thread.start()

    def statuses(self) -> list[str]:
        return [jobs.get_job(self.database, each).status for each in self.jobs]

    def wait_for(self, *expected: str) -> None:
        """Jobs of these statuses, in any order, and a training begun for each that has run or runs."""
        begun = sum(status != "queued" for status in expected)
        wait_for(f"{expected}", lambda: sorted(self.statuses()) == sorted(expected) or None)
        wait_for(f"{begun} trainings", lambda: len(self.places.begun) >= begun or None)

    def assert_no_crash(self) -> None:
        with self.database.read() as connection:
            assert set(connection.exec_driver_sql("SELECT crashes FROM jobs").scalars()) == {0}

    def assert_is_tried_again(self, number: int, mend: Callable[[], None]) -> None:
        """The job has had an attempt and could not begin; it does when that is mended, at no cost."""
        job = self.jobs[number]
        wait_for("two attempts", lambda: jobs.get_job(self.database, job).attempt >= 2 or None)
        mend()
        wait_for("its turn", lambda: jobs.get_job(self.database, job).status == "running" or None)
        self.assert_no_crash()

    def close(self) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def scene(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(runner, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(attempts, "ROOM_SECONDS", 0.02)
    made = Scene(database, tmp_path, Places(2))
    yield made
    made.close()
    made.stop.close()


def test_as_many_jobs_run_at_once_as_there_are_places(scene: Scene) -> None:
    scene.wait_for("running", "running", "queued", "queued", "queued")
    assert scene.statuses()[:2] == ["running"] * 2
    wait_for("the oldest to be told", lambda: workers.list_workers(scene.database)[0].job_id in scene.jobs[:2] or None)
    scene.places.begun[0].may_end.set()
    scene.wait_for("succeeded", "running", "running", "queued", "queued")


def test_places_that_are_gone_are_not_filled_again_and_new_ones_are(scene: Scene) -> None:
    scene.wait_for("running", "running", "queued", "queued", "queued")
    scene.places.number = 1
    scene.places.begun[0].may_end.set()
    scene.wait_for("succeeded", "running", "queued", "queued", "queued")
    scene.places.number = 3
    scene.wait_for("succeeded", "running", "running", "running", "queued")
    scene.places.number = 0
    for training in scene.places.begun:
        training.may_end.set()
    scene.wait_for("succeeded", "succeeded", "succeeded", "succeeded", "queued")


def test_a_stop_ends_all_of_them_and_costs_none_of_them_anything(scene: Scene) -> None:
    scene.wait_for("running", "running", "queued", "queued", "queued")
    scene.close()
    assert scene.statuses() == ["queued"] * 5
    scene.assert_no_crash()
    assert workers.list_workers(scene.database) == []


@pytest.mark.parametrize(
    "refusal",
    [NoPlace("no node had room"), RuntimeError("can't start new thread"), BlockingIOError(11, "no more processes")],
)
def test_a_job_whose_training_cannot_begin_is_given_back_and_tried_later(scene: Scene, refusal: Exception) -> None:
    scene.wait_for("running", "running", "queued", "queued", "queued")
    scene.places.refusal = refusal
    scene.places.number = 3
    scene.assert_is_tried_again(2, lambda: setattr(scene.places, "refusal", None))


@pytest.mark.parametrize("name", ["job ", "heartbeat of "])
def test_a_job_for_which_no_thread_can_be_had_is_given_back_and_tried_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scene.wait_for("running", "running", "queued", "queued", "queued")
    start, there_are_none = threading.Thread.start, True

    def start_unless_there_are_none(thread: threading.Thread) -> None:
        if there_are_none and thread.name.startswith(name):
            raise RuntimeError("can't start new thread")
        start(thread)

    def mend() -> None:
        nonlocal there_are_none
        there_are_none = False

    monkeypatch.setattr(threading.Thread, "start", start_unless_there_are_none)
    scene.places.number = 3
    scene.assert_is_tried_again(2, mend)
