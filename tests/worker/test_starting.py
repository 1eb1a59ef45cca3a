"""Training processes that are forked: as those that load torch themselves, and none takes another along."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.forking import ForkServer, can_fork
from app.processes import start_module
from app.settings import Settings
from models.config import ModelConfig, TrainingConfig
from tests.system.harness import children_of, command_of, wait_for
from worker import starting
from worker.events import Evaluated, Event, Finished, Progress, Sampled, Saved
from worker.launch import (
    TRAINING_NICENESS,
    ChildCrashed,
    Process,
    TrainingChild,
    TrainingTask,
    environment_of,
)
from worker.starting import TrainingStarter

pytestmark = pytest.mark.skipif(not can_fork(), reason="nothing is forked here")

TEXT = "Où est l'été? — À l'école, naïf garçon.\n" * 50
KILLED = -signal.SIGKILL

TELLS_FACTS = """
import os, random, signal, sys, tempfile, threading
import numpy, torch
from app import fault_points, logs

def facts(task, connection, pause_requested):
    children = open(f"/proc/self/task/{os.getpid()}/children").read()
    connection.send({
        "temporary": tempfile.gettempdir(),
        "environment": {k: v for k, v in os.environ.items() if not k.startswith("TORCHINDUCTOR")},
        "niceness": os.nice(0),
        "signals": [int(line.split()[1], 16) & 0x7fffffff for line in open("/proc/self/status")
                    if line.startswith(("SigBlk", "SigIgn", "SigCgt"))],
        "threads of torch": torch.get_num_threads(),
        "denormals": bool(torch.tensor([1e-310], dtype=torch.float64).mul(1.0).item()),
        "threads": sorted({thread.name for thread in threading.enumerate()} - {"end-with-parent"}),
        "request": logs.REQUEST_ID.get(),
        "passings": dict(fault_points._plan.passings) if fault_points._plan else None,
        "children": children,
        "folder": os.getcwd(),
        "numbers": (random.getrandbits(64), int(numpy.random.randint(1 << 62)), torch.initial_seed()),
    })
"""
FRESH = TELLS_FACTS + "from worker import child\nchild.run = facts\nchild.main()\n"
FORKED = (
    "from worker import fork_server\nload = fork_server.load\n\ndef load_and_patch():\n    train = load()\n"
    "    global facts\n    exec(TELLS_FACTS, globals())\n    from worker import child\n    child.run = facts\n"
    "    return train\n\nfork_server.load = load_and_patch\nfork_server.main()\n"
)


def task_of(folder: Path, **training: Any) -> TrainingTask:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.txt").write_text(TEXT, newline="")
    model = ModelConfig("gru", hidden_size=8, embedding_size=4, dropout=0.1)
    wanted = TrainingConfig(**{"steps": 6, "batch_size": 2, "sequence_length": 16, "evaluate_every": 3, **training})
    path, compiled = str(folder / "corpus.txt"), str(Settings().compiled_dir)
    return TrainingTask(model.as_dict(), wanted.as_dict(), path, str(folder), compiled, "sha", "cpu", 2, None)


@pytest.fixture(scope="module")
def starter() -> Iterator[TrainingStarter]:
    """Of all tests: what one of them does to the server must not matter to the next."""
    with closing(TrainingStarter()) as made:
        yield made


@pytest.fixture
def own_starter() -> Iterator[TrainingStarter]:
    with closing(TrainingStarter()) as made:
        yield made


def events_of(child: TrainingChild) -> list[Event]:
    try:
        return list(child.events())
    finally:
        child.close()


def what_it_computed(events: list[Event]) -> list[Any]:
    """Without times."""
    told: list[Any] = []
    for event in events:
        match event:
            case Progress():
                told.append((event.step, event.train_loss))
            case Evaluated():
                told.append((event.step, event.val_loss))
            case Sampled():
                told.append(event.text)
            case Saved():
                told.append((event.step, event.checkpoint))
            case Finished():
                told.append(event)
    return told


def test_a_forked_training_computes_to_the_bit_what_a_fresh_one_does(tmp_path: Path, starter: TrainingStarter) -> None:
    fresh = events_of(TrainingChild(task_of(tmp_path / "fresh")))
    for number in range(2):
        forked = events_of(starter.start(task_of(tmp_path / f"forked-{number}")))
        assert what_it_computed(forked) == what_it_computed(fresh)
    assert any(isinstance(event, Saved) and event.checkpoint for event in fresh)


def test_a_forked_training_finds_itself_in_all_that_it_can_see_as_a_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "training.event:1000:kill")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "fresh.py").write_text(FRESH)
    (tmp_path / "facts_server.py").write_text(f"TELLS_FACTS = {TELLS_FACTS!r}\n{FORKED}")
    monkeypatch.setattr(starting, "SERVER", "facts_server")
    task = replace(task_of(tmp_path / "attempt"), request_id="req_of_this_task")

    def fresh(task: TrainingTask) -> tuple[Process, socket.socket]:
        started = start_module("fresh", niceness=TRAINING_NICENESS, env=environment_of(task, task.folder))
        return started.process, started.socket

    starter = TrainingStarter()
    facts = []
    for start in (lambda: TrainingChild(task, fresh), lambda: starter.start(task), lambda: starter.start(task)):
        child = start()
        facts.append(child._connection.recv())
        child.close()
    starter.close()
    drawn = [told.pop("numbers") for told in facts]
    assert facts[1] == facts[0]
    assert facts[2] == facts[0]
    assert facts[0]["temporary"] == task.folder
    assert facts[0]["request"] == "req_of_this_task"
    assert facts[0]["passings"] == {}
    for kind in range(3):
        assert len({numbers[kind] for numbers in drawn}) == 3, "equal once in 2**62 runs"


def test_the_server_runs_no_thread_and_holds_no_file_but_its_socket(tmp_path: Path, starter: TrainingStarter) -> None:
    events_of(starter.start(task_of(tmp_path / "attempt")))
    assert starter.server is not None
    folder = Path(f"/proc/{starter.server.pid}")
    assert len(list((folder / "task").iterdir())) == 1

    def has_its_socket_alone() -> bool:
        opened = [os.readlink(file) for file in (folder / "fd").iterdir() if int(file.name) > 2]
        return [name.partition(":")[0] for name in opened] == ["socket"]

    wait_for("the line of what has ended to be closed", has_its_socket_alone)


def test_fault_points_count_each_training_by_itself(
    tmp_path: Path, own_starter: TrainingStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "training.event:3:kill")
    for number in range(2):
        child = own_starter.start(task_of(tmp_path / f"attempt-{number}"))
        events: list[Event] = []
        with pytest.raises(ChildCrashed) as crashed:
            events.extend(child.events())
        child.close()
        assert crashed.value.exit_code == KILLED
    assert own_starter.server is not None
    assert own_starter.server.is_alive()


def test_a_training_that_dies_takes_nobody_along(tmp_path: Path, starter: TrainingStarter) -> None:
    child = starter.start(task_of(tmp_path / "attempt", steps=10**7))
    server = starter.server
    next(child.events())
    os.kill(child.pid, signal.SIGSEGV)
    with pytest.raises(ChildCrashed) as crashed:
        list(child.events())
    child.close()
    assert crashed.value.exit_code == -signal.SIGSEGV
    assert isinstance(events_of(starter.start(task_of(tmp_path / "next")))[-1], Finished)
    assert starter.server is server


def test_when_the_server_is_killed_the_training_has_crashed_and_the_next_gets_another(
    tmp_path: Path, starter: TrainingStarter
) -> None:
    child = starter.start(task_of(tmp_path / "attempt", steps=10**7))
    next(child.events())
    assert starter.server is not None
    killed = starter.server.pid
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(ChildCrashed) as crashed:
        list(child.events())
    child.close()
    assert crashed.value.exit_code == KILLED
    assert isinstance(events_of(starter.start(task_of(tmp_path / "next")))[-1], Finished)
    assert starter.server.pid != killed


@pytest.mark.parametrize("gently", [False, True])
def test_a_training_can_be_ended_while_the_server_loads_however_much_it_was_to_be_told(
    tmp_path: Path, own_starter: TrainingStarter, monkeypatch: pytest.MonkeyPatch, gently: bool
) -> None:
    class Stopped(ForkServer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            os.kill(self.pid, signal.SIGSTOP)

    with monkeypatch.context() as stopping:
        stopping.setattr(starting, "ForkServer", Stopped)
        child = own_starter.start(replace(task_of(tmp_path / "attempt"), resume_point=bytes(4_000_000)))
    if gently:
        child.request_pause()
    child.kill()
    with pytest.raises(ChildCrashed) as crashed:
        list(child.events())
    child.close()
    assert crashed.value.exit_code == KILLED
    assert isinstance(events_of(own_starter.start(task_of(tmp_path / "next")))[-1], Finished)


def test_where_the_server_cannot_be_had_the_next_training_loads_everything_itself(
    tmp_path: Path, own_starter: TrainingStarter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(starting, "SERVER", "worker.no_such_module")
    with pytest.raises(ChildCrashed) as crashed:
        events_of(own_starter.start(task_of(tmp_path / "attempt")))
    assert crashed.value.exit_code == 1
    for number in range(2):
        child = own_starter.start(task_of(tmp_path / f"next-{number}"))
        next(child.events())  # before it runs, its command line is ours
        assert b"worker.child" in command_of(child.pid)
        assert isinstance(events_of(child)[-1], Finished)
    assert caplog.text.count("cannot be forked") == 1


def test_training_on_a_gpu_is_never_forked(tmp_path: Path, own_starter: TrainingStarter) -> None:
    child = own_starter.start(replace(task_of(tmp_path / "attempt"), device="cuda:0"))
    next(child.events())
    assert b"worker.child" in command_of(child.pid)
    assert child.pid in children_of(os.getpid())
    child.close()
    assert own_starter.server is None


def test_after_a_long_rest_the_server_ends_and_the_next_task_starts_another(tmp_path: Path) -> None:
    now = [0.0]
    starter = TrainingStarter(monotonic=lambda: now[0])
    events_of(starter.start(task_of(tmp_path / "attempt")))
    server = starter.server
    assert server is not None
    now[0] = starting.IDLE_SECONDS - 1
    starter.rest()
    assert server.is_alive()
    now[0] = starting.IDLE_SECONDS + 1
    starter.rest()
    assert not server.is_alive()
    assert not list(tmp_path.glob("attempt-*")), "its folder is gone too"
    assert isinstance(events_of(starter.start(task_of(tmp_path / "next")))[-1], Finished)
    starter.close()


def test_a_task_with_compiled_functions_elsewhere_gets_a_server_of_its_own(
    tmp_path: Path, starter: TrainingStarter
) -> None:
    task = task_of(tmp_path / "attempt")
    events_of(starter.start(task))
    first = starter.server
    child = starter.start(replace(task, compiled=str(tmp_path / "compiled")))
    assert starter.server is not first
    assert first is not None
    assert not first.is_alive()
    next(child.events())
    environment = Path(f"/proc/{child.pid}/environ").read_text().split("\0")
    child.close()
    assert f"NUMBA_CACHE_DIR={tmp_path / 'compiled'}" in environment
