"""Trainings on a node of a Ray cluster: an actor holds a place there, and has a process for each training in turn.

Knows no database and no dispatcher, and imports no torch. Everything comes in the task and in objects of Ray's store,
and goes back as events: nodes share no disk with anybody. Needs the same Charsmith as the dispatcher has, installed on
the node. Invariant: a training's process ends with the actor.
"""

import importlib.metadata
import os
import platform
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from app.settings import PREFIX, Settings, load_settings
from worker.events import Event
from worker.executor import ask_device
from worker.launch import ChildCrashed, TrainingChild, TrainingFailed, TrainingRefusal, TrainingTask
from worker.memory_kills import memory_kills
from worker.starting import TrainingStarter
from worker.workspace import attempt_folder, sweep

Text = Sequence["ray.ObjectRef[bytes]"]
"""A corpus as UTF-8, in pieces, in Ray's object store."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The last message of a training whose process ended without a last word of its own: how, as subprocess has it."""

    exit_code: int
    out_of_memory: bool
    """Whether the kernel ended a process of this machine for lack of memory meanwhile."""


def installed_version() -> str:
    """Of Charsmith, here."""
    return importlib.metadata.version("charsmith")


def node_settings() -> Settings:
    """This node's: of the environment that its Ray was started in, which is not the dispatcher's. Files lie below the
    home of whoever runs the node, unless it says where. Raises SettingsError."""
    told = os.environ.get(f"{PREFIX}DATA_DIR")
    return load_settings(data_dir=told or Path.home() / ".cache" / "charsmith")


class TrainingActor:
    """A place, asked about once. For each training then `receive` and `events`, a streaming generator; `pause` comes on
    another thread, at any time."""

    def __init__(self) -> None:
        self._starter = TrainingStarter()
        self._files = ExitStack()
        self._lock = threading.Lock()
        self._child: TrainingChild | None = None
        self._number = self._to_pause = self._kills_before = 0

    def place(self, device: str) -> dict[str, str]:
        """Answered as soon as the actor runs: where, and what keeps trainings from beginning there, if anything does.

        Of names and words alone, which a dispatcher of another version can read.
        """
        place = {"name": platform.node(), "version": "", "fault": ""}
        try:
            place["version"] = installed_version()
            with attempt_folder(node_settings().temporary_dir / "attempts", f"question-{secrets.token_hex(8)}"):
                # Also of a CPU: PyTorch may be missing, and each job would seem to crash.
                if (answer := ask_device(device)).returncode != 0:
                    place["fault"] = answer.stderr.strip() or f"{device} does not work"
        except Exception as error:  # noqa: BLE001 - whatever it is, no training can begin here
            place["fault"] = _told(error)
        return place

    def receive(self, number: int, task: TrainingTask, text: Text) -> str:
        """Write the text down here and begin to train. What kept it from that, or nothing.

        A call by itself, since Ray keeps what a call was given as long as the call lasts.
        """
        try:
            settings = node_settings()
            parent = settings.temporary_dir / "attempts"
            sweep(parent)  # what actors left that were killed
            folder = self._files.enter_context(attempt_folder(parent))
            path = folder / "corpus.txt"
            with path.open("wb") as file:
                for piece in text:  # the node's object store holds the whole, this process one piece of it
                    file.write(ray.get(piece))
            compiled = settings.compiled_dir
            here = replace(task, text_path=str(path), folder=str(folder), compiled=str(compiled))
            self._kills_before = memory_kills()
            child = self._starter.start(here)
        except Exception as error:  # noqa: BLE001 - no room, no process, the text's owner is gone: no fault of the job
            self._files.close()
            return _told(error)
        with self._lock:
            self._number, self._child = number, child
            if self._to_pause == number:
                child.request_pause()
        return ""

    def pause(self, number: int) -> None:
        """Ask this training for a resume point after the current step, and an end."""
        with self._lock:
            self._to_pause = number
            if self._number == number and self._child is not None:
                self._child.request_pause()

    def events(self) -> Iterator[Event | TrainingRefusal | Crashed]:
        """What training says; a refusal or a crash is its last message. What is not taken holds training back."""
        assert self._child is not None, "received before"
        try:
            with closing(self._child) as child:
                try:
                    yield from child.events()
                except TrainingFailed as failure:
                    yield failure.refusal
                except ChildCrashed as crash:
                    yield Crashed(crash.exit_code, memory_kills() > self._kills_before)
                finally:
                    with self._lock:
                        self._child = None
        finally:
            self._files.close()


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
