"""What cannot be brought about on a cluster of this machine: orders that are lost, nodes of no use, full disks."""

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is an extra: pip install 'charsmith[ray]'")

from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    OutOfDiskError,
    OutOfMemoryError,
    OwnerDiedError,
    RayTaskError,
)

from models.config import ModelConfig, TrainingConfig
from tests.cluster.driven import FORKS_FOLDERS
from tests.system.harness import wait_for
from worker import ray_actor, ray_training
from worker.events import Event, Finished, Saved, Started
from worker.executor import NoPlace
from worker.launch import DISK_FULL, ChildCrashed, TrainingFailed, TrainingRefusal, TrainingTask
from worker.ray_actor import Crashed, TrainingActor, installed_version
from worker.ray_nodes import BUSY_SECONDS, REFUSED_SECONDS, Node, Nodes
from worker.ray_places import Needs, Places
from worker.ray_training import RayTraining, Seat

STARTED = Started(0, 10, 1234, 20, 1900, 200, "cpu", "float32")
SAVED = Saved(5, None, None, best=False, checkpoint=None, resume_point=b"")
FINISHED = Finished(10, "budget", None, None)
TASK = TrainingTask({}, {}, "", "", "", "sha", "cpu", 1, None)


class Actor:
    """An actor and its Ray. What it answers to a call comes, is an error, or (None) never comes."""

    def __init__(self, place: Any, *events: Any, received: Any = "") -> None:
        self.answers = {"place": place, "receive": received, "completed": "done"}
        self.told = [*events]
        self.called = ""
        self.killed = 0
        self.kill_error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        self.called = name
        return self

    def options(self, **_: Any) -> "Actor":
        return self

    def remote(self, *_: Any) -> Any:
        return self if self.called == "events" else self.called

    def __next__(self) -> Any:
        if not self.told:
            raise StopIteration
        return self.told.pop(0)

    def completed(self) -> str:
        return "completed"

    def wait(self, waited: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        (one,) = waited
        ready = self.answers.get(one) is not None if isinstance(one, str) else self.told[:1] != ["never"]
        if not ready:
            time.sleep(timeout)
        return (waited, []) if ready else ([], waited)

    def get(self, message: Any, timeout: float) -> Any:
        answer = self.answers.get(message, message) if isinstance(message, str) else message
        if answer == "unreachable":
            time.sleep(timeout)
            raise GetTimeoutError
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, _: Any) -> None:
        self.killed += 1
        if self.kill_error is not None:
            raise self.kill_error


PLACE = {"name": "one", "version": installed_version(), "fault": ""}
NODE = Node("node-1", "10.0.0.7", 1, 4, 0, 2**40)


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, actor: Actor, *, is_new: bool = True) -> None:
        monkeypatch.setattr(ray_training, "ray", actor)
        monkeypatch.setattr(ray_training, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(ray_training, "KILLED_SECONDS", 0.05)
        monkeypatch.setattr(ray_training, "PLACE_SECONDS", 0.05)
        monkeypatch.setattr(ray_training, "RECEIVE_SECONDS", 0.05)
        nodes = Nodes("own")
        nodes._living = (NODE,)
        self.refused = self.suspected = 0
        self.refused_for = 0.0
        self.let_go: list[bool] = []
        monkeypatch.setattr(nodes, "refuse", self._refuse)
        monkeypatch.setattr(nodes, "suspect", self._suspect)
        self.actor, self.places = actor, Places(nodes)
        self.place, _ = self.places.take(Needs(1, 0, 0))
        self.training = RayTraining(TASK, [], Seat(actor, self.place, is_new), self.let_go.append)

    def _refuse(self, node: Node, why: str, seconds: float = REFUSED_SECONDS) -> None:
        assert node is NODE
        assert why
        self.refused += 1
        self.refused_for = seconds

    def _suspect(self, node: Node) -> None:
        assert node is NODE
        self.suspected += 1

    def events(self) -> list[Event]:
        return list(self.training.events())

    def close(self, *, is_ready: bool = False) -> None:
        self.training.close()
        assert self.let_go == [is_ready]


def task_error(cause: Exception) -> Exception:
    """As `ray.get` raises it."""
    return RayTaskError("events", "Traceback\nRuntimeError: a bug", cause).as_instanceof_cause()  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        (Actor(PLACE | {"version": "0.0.1"}), "has Charsmith 0.0.1, and the dispatcher"),
        (
            Actor(PLACE | {"fault": "OSError: read-only", "version": ""}),
            r"on node 10\.0\.0\.7: one says OSError: read-only",
        ),
        (Actor(ActorDiedError()), "ActorDiedError"),  # as when Charsmith is not installed there
        (Actor(task_error(RuntimeError("a bug"))), "a bug"),
        (Actor(None), "nothing came of `place`"),
        (Actor(PLACE, received="OSError: no room"), "OSError: no room"),
        (Actor(PLACE, received=None), "nothing came of `receive`"),
        (Actor(PLACE, received=ActorDiedError()), "ActorDiedError"),
    ],
    ids=["version", "fault", "died", "error", "no room", "no room for the text", "no text", "died of the text"],
)
def test_what_happens_before_training_has_begun_is_the_nodes_fault_and_not_the_job_s(
    monkeypatch: pytest.MonkeyPatch, actor: Actor, words: str
) -> None:
    scene = Scene(monkeypatch, actor)
    with pytest.raises(NoPlace, match=words):
        scene.events()
    assert scene.refused == 1
    assert scene.refused_for == (BUSY_SECONDS if "`place`" in words else REFUSED_SECONDS), (
        "who is busy is so for a while"
    )
    scene.close()


@pytest.mark.parametrize("stuck", [["never"], ["unreachable"]], ids=["says nothing", "on a node out of reach"])
def test_a_training_that_was_killed_is_over_though_nobody_says_so(
    monkeypatch: pytest.MonkeyPatch, stuck: list[str]
) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED, *stuck))
    events = scene.training.events()
    assert next(events) == STARTED
    scene.training.kill()
    with pytest.raises(ChildCrashed) as crashed:
        next(events)
    assert (crashed.value.exit_code, scene.suspected) == (-9, 1)
    scene.close()
    wait_for("the order", lambda: scene.actor.killed or None)


def test_a_training_that_waits_for_a_place_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, Actor(None))
    monkeypatch.setattr(ray_training, "PLACE_SECONDS", 1e9)
    scene.training.kill()
    with pytest.raises(ChildCrashed):
        scene.events()
    scene.close()


@pytest.mark.parametrize("lost", [Actor(ActorDiedError()), Actor(PLACE, received=ActorDiedError())])
def test_a_node_is_not_to_blame_for_a_training_that_is_killed_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, lost: Actor
) -> None:
    scene = Scene(monkeypatch, lost)
    scene.training.kill()
    with pytest.raises(ChildCrashed):
        scene.events()
    assert scene.refused == 0


def test_an_order_to_end_that_never_returns_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a head."""
    scene = Scene(monkeypatch, Actor(None))
    head_is_back = threading.Event()
    monkeypatch.setattr(scene.actor, "kill", lambda _: head_is_back.wait(60))
    scene.training.kill()
    with pytest.raises(ChildCrashed):
        scene.events()
    scene.close()
    head_is_back.set()


@pytest.mark.parametrize("last", [FINISHED, TrainingRefusal("diverged", "", "")])
def test_an_actor_that_has_heard_a_last_word_is_ready_for_another_training(
    monkeypatch: pytest.MonkeyPatch, last: Any
) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED, last))
    if isinstance(last, Finished):
        assert scene.events() == [STARTED, last]
    else:
        with pytest.raises(TrainingFailed):
            scene.events()
    scene.close(is_ready=True)


@pytest.mark.parametrize("how", ["killed before", "killed meanwhile", "not yet done", "its end failed"])
def test_an_actor_that_may_still_be_at_work_is_not_ready(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED, FINISHED))
    scene.events()
    if how == "killed before":
        scene.training.kill()
    elif how == "killed meanwhile":
        monkeypatch.setattr(scene.actor, "get", lambda *_, **__: scene.training.kill())
    else:
        scene.actor.answers["completed"] = ActorDiedError() if how == "its end failed" else "unreachable"
        monkeypatch.setattr(ray_training, "CLEAN_SECONDS", 0.01)
    scene.close()


def test_an_order_that_comes_when_the_actor_is_another_training_s_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED, FINISHED))
    scene.events()
    scene.close(is_ready=True)
    ordered: list[Any] = []
    monkeypatch.setattr(ray_training, "order_end", ordered.append)
    scene.training.kill()
    assert ordered == []


@pytest.mark.parametrize("for_memory", [True, False])
def test_a_training_whose_process_died_is_a_crash_as_its_node_tells_it(
    monkeypatch: pytest.MonkeyPatch, *, for_memory: bool
) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED, Crashed(-9, for_memory)))
    with pytest.raises(ChildCrashed) as crashed:
        scene.events()
    assert (crashed.value.exit_code, crashed.value.out_of_memory) == (-9, for_memory)
    scene.close()


def test_an_actor_that_died_while_it_waited_is_looked_after_and_its_node_not_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, Actor(None, received=ActorDiedError()), is_new=False)
    with pytest.raises(NoPlace, match="place was lost"):
        scene.events()
    assert (scene.suspected, scene.refused) == (1, 0)


@pytest.mark.parametrize(
    ("error", "suspected"),
    [(ActorDiedError(), 1), (OutOfMemoryError("killed"), 1), (task_error(RuntimeError("a bug")), 0)],
    ids=["the actor died", "no memory", "an error of training"],
)
def test_a_training_that_breaks_off_is_a_crash_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, suspected: int
) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED, error))
    with pytest.raises(ChildCrashed, match=r"^[\w()]+: [^\n]*$"):
        scene.events()
    assert (scene.suspected, scene.refused) == (suspected, 0)


@pytest.mark.parametrize(
    ("saved", "is_alone", "outcome"),
    [([], False, NoPlace), ([SAVED], False, ChildCrashed), ([], True, ChildCrashed)],
    ids=["new", "with progress", "alone"],
)
def test_who_came_last_to_a_node_that_ran_short_of_memory_is_not_to_blame(
    monkeypatch: pytest.MonkeyPatch, saved: list[Event], *, is_alone: bool, outcome: type[Exception]
) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED, *saved, OutOfMemoryError("killed")))
    other, _ = scene.places.take(Needs(1, 0, 0))
    other.is_idle = is_alone
    with pytest.raises(outcome):
        scene.events()


def test_a_node_whose_disk_is_full_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED, TrainingRefusal(DISK_FULL, "full", "")))
    with pytest.raises(TrainingFailed):
        scene.events()
    assert scene.refused == 1


def test_an_actor_that_ends_without_a_last_word_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, Actor(PLACE, STARTED))
    with pytest.raises(ChildCrashed, match="without a last word"):
        scene.events()


class Here:
    """An actor, which is a plain class, in this process; its files lie in a folder of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        monkeypatch.setenv("CHARSMITH_DATA_DIR", str(folder))
        monkeypatch.setattr(ray_actor, "memory_kills", lambda: 0)  # the machine's, which another test may raise
        self.monkeypatch = monkeypatch
        self.attempts = folder / "tmp" / "attempts"
        self.actor = TrainingActor()
        self.number = 0

    def receive(self, text: bytes, steps: int, error: Exception | None = None) -> str:
        def get(piece: bytes) -> bytes:
            if error is not None:
                raise error
            return piece

        self.monkeypatch.setattr(ray_actor.ray, "get", get)
        self.number += 1
        model = ModelConfig(cell="gru", hidden_size=8, embedding_size=4).as_dict()
        training = TrainingConfig(steps=steps, batch_size=2, sequence_length=16, evaluate_every=steps).as_dict()
        task = TrainingTask(model, training, "", "", "", "sha", "cpu", 1, None)
        return self.actor.receive(self.number, task, [text])  # type: ignore[list-item]

    def folders(self) -> list[Path]:
        """Of trainings: one more has the process that forks them."""
        return [path for path in self.attempts.iterdir() if not path.match(FORKS_FOLDERS)]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Here]:
    made = Here(monkeypatch, tmp_path)
    yield made
    made.actor._starter.close()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no room"), OutOfDiskError("no room"), OwnerDiedError("00", b"", "")]
)
def test_a_text_that_does_not_come_to_lie_there_is_told_and_leaves_nothing_behind(here: Here, error: Exception) -> None:
    assert type(error).__name__ in here.receive(b"text", 1, error)
    assert [*here.attempts.iterdir()] == []


def test_one_actor_trains_one_job_after_the_other_each_in_a_process_of_its_own(here: Here) -> None:
    """A refusal, a training to its end, one that is paused, one whose process is killed."""
    assert here.receive(b"ab", 1) == ""
    *_, told = here.actor.events()
    assert isinstance(told, TrainingRefusal)
    assert told.code == "corpus_too_short"
    text = b"to be or not to be, that is the question\n" * 40
    assert here.receive(text, 3) == ""
    *_, told = here.actor.events()
    assert isinstance(told, Finished)
    assert told.reason == "budget"

    here.actor.pause(here.number)  # late: that one has ended
    assert here.receive(text, 3) == ""
    *_, told = here.actor.events()
    assert isinstance(told, Finished)
    assert told.reason == "budget"
    here.actor.pause(here.number + 1)  # early
    assert here.receive(text, 10**6) == ""
    assert here.folders()
    *_, told = here.actor.events()
    assert isinstance(told, Finished)
    assert told.reason == "paused"

    assert here.receive(text, 10**6) == ""
    said = here.actor.events()
    assert any(isinstance(event, Started) for event in said)
    assert here.actor._child is not None
    here.actor._child.kill()
    *_, told = said
    assert told == Crashed(-9, out_of_memory=False)
    assert here.folders() == []


@pytest.mark.parametrize(
    ("settings", "device", "fault"),
    [
        ({}, "cpu", ""),
        ({"CHARSMITH_DATA_DIR": "/proc/nowhere"}, "cpu", "Error: "),
        ({"CUDA_VISIBLE_DEVICES": ""}, "cuda", "CUDA"),
    ],
    ids=["good", "no folder", "no device"],
)
def test_a_node_says_whether_trainings_can_begin_there(
    here: Here, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], device: str, fault: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    told = here.actor.place(device)
    assert told["version"] == installed_version()
    assert fault in told["fault"]
    assert bool(fault) == bool(told["fault"])
