"""Where trainings run: what the runner asks of that, and the default, one process of this machine at a time.

Knows no database and imports no torch. `worker.ray_cluster` is the other one.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from worker.events import Event
from worker.launch import TrainingTask
from worker.starting import TrainingStarter


class Training(Protocol):
    """An attempt's training under way. `events` belongs to one thread; pause and kill may come from any other."""

    def events(self) -> Iterator[Event]:
        """What training says, until Finished. Raises TrainingFailed, ChildCrashed, NoPlace."""
        ...

    def request_pause(self) -> None:
        """Ask for a resume point after the current step, and an end."""
        ...

    def kill(self) -> None:
        """End it at once; `events` then raises ChildCrashed, or NoPlace if it had not begun."""
        ...

    def close(self) -> None:
        """Make sure that it is gone."""
        ...


class NoPlace(Exception):
    """The training found no place to begin at; the message says what was wanted. No fault of the job."""


class Executor(Protocol):
    """Where trainings run. Any thread may ask."""

    @property
    def device(self) -> str:
        """`cpu`, or the CUDA device."""
        ...

    @property
    def memory_bytes(self) -> int | None:
        """What one training may take there. None: not known yet."""
        ...

    @property
    def threads(self) -> int:
        """Of one training. A resumed one takes the number that it began with instead."""
        ...

    def places(self) -> int:
        """How many trainings may run at once, as things are now."""
        ...

    def start(self, task: TrainingTask) -> Training:
        """Begin; the task's files stay until the training is closed, but for the text. Raises NoPlace; RuntimeError or
        BlockingIOError when no thread or process can be had."""
        ...

    def works(self) -> bool:
        """Whether the device still does, asked when a training ended before it had begun."""
        ...

    def rest(self) -> None:
        """No job runs and none waits, at this moment."""
        ...

    def close(self) -> None:
        """There will be no more trainings."""
        ...

    def is_lost(self) -> bool:
        """Whether it is known never to work again; it then has no places. Asked often."""
        ...


class OwnDevice:
    """This machine's device, one training at a time, each in a process of its own."""

    def __init__(self, device: str, memory_bytes: int, threads: int | None) -> None:
        self.device = device
        self.memory_bytes: int | None = memory_bytes
        self.threads = threads or usable_cores()
        self._starter = TrainingStarter()
        self.start: Callable[[TrainingTask], Training] = self._starter.start
        self.rest, self.close = self._starter.rest, self._starter.close

    def places(self) -> int:
        return 1

    def works(self) -> bool:
        return ask_device(self.device).returncode == 0

    def is_lost(self) -> bool:
        return False  # it costs a process to find out; a training that cannot begin tells


def usable_cores() -> int:
    """All cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ask_device(wanted: str) -> subprocess.CompletedProcess[str]:
    """`worker.device`, run as a program: the worker itself must never touch a device."""
    command = [sys.executable, "-P", "-m", "worker.device", wanted]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
