"""Starts a worker's training processes: forked from a server that has loaded everything, or each anew.

Knows no torch and no job. A process that loads torch itself takes seconds until its first step; a forked one takes
tenths. The server is started with the first task and ended when no job has come for long: it takes memory.
"""

import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

from app.forking import ForkServer, can_fork
from worker.launch import Process, TrainingChild, TrainingTask, environment_of, niceness_of, start_anew
from worker.workspace import attempt_folder

log = logging.getLogger(__name__)

SERVER = "worker.fork_server"
IDLE_SECONDS = 600.0
"""So long without a task, and the server's memory is given back."""


class TrainingStarter:
    """For one thread. `close` it at the end."""

    def __init__(self, *, forks: bool | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._forks = can_fork() if forks is None else forks
        self._monotonic = monotonic
        self._server: ForkServer | None = None
        self._made_for = ""
        self._folder = contextlib.ExitStack()
        self._used_at = monotonic()

    @property
    def server(self) -> ForkServer | None:
        """The one that runs, if any does."""
        return self._server

    def start(self, task: TrainingTask) -> TrainingChild:
        """A process that trains."""
        # On a GPU anew: a forked process may not use a device that its parent has so much as asked about.
        forks = self._forks and task.device == "cpu"
        return TrainingChild(task, self._fork if forks else start_anew)

    def rest(self) -> None:
        """No job waits: after a while the server ends."""
        if self._server is not None and self._monotonic() - self._used_at > IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        """The server is gone, and what it forked."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._folder.close()

    def _fork(self, task: TrainingTask) -> tuple[Process, socket.socket]:
        self._used_at = self._monotonic()
        if self._server is not None and self._server.has_given_up():
            log.warning("training processes cannot be forked here: each loads everything itself")
            self._forks = False
            self.close()
            return start_anew(task)
        if self._server is not None and self._server.is_alive() and self._made_for == task.compiled:
            with contextlib.suppress(OSError):  # it has ended just now
                return self._server.fork()
        return self._new_server(task).fork()

    def _new_server(self, task: TrainingTask) -> ForkServer:
        self.close()
        folder = self._folder.enter_context(attempt_folder(Path(task.folder).parent, f"forks-{secrets.token_hex(8)}"))
        environment = environment_of(task, str(folder))
        self._server = ForkServer(SERVER, niceness=niceness_of(task), env=environment)
        self._made_for = task.compiled
        return self._server
