"""Runs `train()` in a child process, so that a crash, an out-of-memory kill or a wedged device takes only the child.

Knows no database and imports no torch: the worker must never touch a device itself (a CUDA context survives no fork and
no kill). Invariant: after `close()` the child is gone. Messages are pickled between processes that belong to each other
(two of one machine, or a dispatcher and the nodes of its cluster); nothing else from outside is, and nothing at rest.
"""

import contextlib
import errno
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from app.processes import start_module
from worker.events import Event, Finished

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL = "disk_full"
"""The one code of a refusal that is no fault of the job: it is tried again."""
TRAINING_NICENESS = 10
"""On a shared CPU the service's requests go first."""

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
"""glibc hands blocks above 32 MiB back at once, and every step then waits for the kernel to clear them again: a fifth
of the time of an LSTM 1x512 with 64 lanes."""

TRAINING_ENVIRONMENT = {**KEEP_MEMORY, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5000"}
"""Of a training process. Threads that have nothing to multiply sleep: spinning, they took the cores of those that walk
through time, a quarter of a GRU's step on two cores, and of every other process. Some 0.1 ms they do spin (GNU's
library alone, which prefers its own setting): an optimizer's operations come faster than a thread wakes."""


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """All that a child needs to know."""

    model: dict[str, Any]
    training: dict[str, Any]
    text_path: str
    """The corpus as UTF-8, a file that the child may remove once it is encoded."""
    folder: str
    """Where the encoded corpus and temporary files may lie."""
    compiled: str
    """Where compiled functions are kept, for all trainings."""
    corpus_sha256: str
    device: str
    threads: int
    resume_point: bytes | None
    from_checkpoint: bytes | None = None
    """The checkpoint file whose weights the network begins with; its characters are kept."""
    request_id: str = ""
    """Of the request that queued the job, for the log."""
    memory_bytes: int = 0
    """What the training takes at least."""


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """To the child: store a resume point after this step and end."""


@dataclass(frozen=True, slots=True)
class TrainingRefusal:
    """From the child, its last message: the job cannot go on, and trying again would not help (`DISK_FULL` aside)."""

    code: str
    detail: str
    traceback: str


class TrainingFailed(Exception):
    """The child gave the job up, with a reason."""

    def __init__(self, refusal: TrainingRefusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.detail}")
        self.refusal = refusal


class ChildCrashed(Exception):
    """The child ended without a last word. `exit_code` is negative for a signal, as subprocess has it; `out_of_memory`
    whether the kernel ended it for lack of memory, None if its machine is this one and was not asked."""

    def __init__(self, exit_code: int, why: str = "", *, out_of_memory: bool | None = None) -> None:
        super().__init__(why or f"the training process ended with {exit_code}")
        self.exit_code = exit_code
        self.out_of_memory = out_of_memory


class Process(Protocol):
    """Of `subprocess.Popen` what is needed here."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def wait(self) -> int: ...


def environment_of(task: TrainingTask, temporary: str) -> dict[str, str]:
    """Of a process that trains such a task."""
    # Torch's optimizer imports what wants a temporary folder, and a container with a read-only root has no /tmp.
    return {**os.environ, **TRAINING_ENVIRONMENT, "TMPDIR": temporary, "NUMBA_CACHE_DIR": task.compiled}


def niceness_of(task: TrainingTask) -> int:
    """Added to the worker's own."""
    return TRAINING_NICENESS if task.device == "cpu" else 0


def start_anew(task: TrainingTask) -> tuple[Process, socket.socket]:
    """A training process that has everything to load, and the socket to it."""
    child = start_module("worker.child", niceness=niceness_of(task), env=environment_of(task, task.folder))
    return child.process, child.socket


class TrainingChild:
    """One attempt's process. `events` belongs to one thread; `request_pause` and `kill` may come from any other."""

    def __init__(
        self, task: TrainingTask, start: Callable[[TrainingTask], tuple[Process, socket.socket]] = start_anew
    ) -> None:
        self._process, ours = start(task)
        self._connection = Connection(ours.detach())
        self._to_send: queue.SimpleQueue[TrainingTask | PauseRequest | None] = queue.SimpleQueue()
        self._to_send.put(task)
        # A thread of its own: a resume point is more than the socket holds, and the child reads it only when it has
        # imported torch. Whoever starts it could not end it meanwhile.
        self._sender = threading.Thread(target=self._send_all, name="to-training", daemon=True)
        self._sender.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def events(self) -> Iterator[Event]:
        """What training says, until Finished. Raises TrainingFailed or ChildCrashed."""
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):  # OSError: it died in the middle of a message
                raise ChildCrashed(self._process.wait()) from None
            if isinstance(message, TrainingRefusal):
                raise TrainingFailed(message)
            yield message
            if isinstance(message, Finished):
                return

    def request_pause(self) -> None:
        """Ask for a resume point after the current step, and an end."""
        self._to_send.put(PauseRequest())

    def kill(self) -> None:
        """End it at once; `events` then raises ChildCrashed."""
        self._process.kill()

    def close(self) -> None:
        """Make sure that it is gone."""
        self._process.kill()
        self._process.wait()
        self._to_send.put(None)
        self._sender.join()  # what it was sending has failed: nobody has the other end any more
        self._connection.close()

    def _send_all(self) -> None:
        while (message := self._to_send.get()) is not None:
            with contextlib.suppress(OSError):  # it has died: `events` says so
                self._connection.send(message)
