"""Child processes of ours: `python -m <module>`, joined to us by a socket pair, ending when we do.

Knows nothing of what is said over the socket, and imports neither torch nor the module that it starts
(multiprocessing's spawn would import it here).
Invariant: of our open files a child inherits its end of the socket, stdout and stderr alone.
"""

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_ARGUMENT = "--started-by="
_PARENT_POLL_SECONDS = 0.5
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Child:
    """A running child and our end of the socket to it; end of file on it tells that the child has ended."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    def end(self, grace_seconds: float = 0.0) -> int:
        """The exit status; the child is asked to end (its socket closes, SIGTERM), then made to. Blocks."""
        self.socket.close()
        if self.process.poll() is None and grace_seconds > 0:
            self.process.terminate()
            try:
                return self.process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                pass
        self.process.kill()
        return self.process.wait()


class StopRequest:
    """Whether SIGTERM or SIGINT has asked this process to stop; any thread may look or wait.

    Not a `threading.Event`: a handler runs in the main thread, which may be inside that event's own lock just then, and
    would wait for itself for ever.
    """

    def __init__(self) -> None:
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._writable, False)
        self._requested = False

    def listen(self) -> None:
        """From now on the two signals set it; asked again, nothing changes. To be called in the main thread."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._asked)

    def _asked(self, *_: object) -> None:
        self.set()
        _disregard_further_requests()

    def set(self) -> None:
        """Ask. From any thread or signal handler."""
        if not self._requested:
            self._requested = True
            os.write(self._writable, b"\0")  # never read: it stays readable for everyone

    def is_set(self) -> bool:
        return self._requested

    def wait(self, seconds: float) -> bool:
        """Whether it is set, after waiting for it for so long."""
        select.select([self._readable], [], [], seconds)
        return self._requested

    def close(self) -> None:
        os.close(self._readable)
        os.close(self._writable)


def start_module(
    module: str, arguments: Sequence[str] = (), *, niceness: int = 0, env: Mapping[str, str] | None = None
) -> Child:
    """Run `python -m module arguments` from the code that we run from, whatever the working directory.

    `env` is the child's whole environment, ours if None. `niceness` is added to ours. Ctrl-C in a terminal reaches
    us alone.
    """
    ours, theirs = socket.socketpair()
    fd = fcntl.fcntl(
        theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 3
    )  # below 3 it would be overwritten if our stdin is closed
    theirs.close()
    try:
        # -P: an `app` folder in the working directory must not be taken for ours.
        command = [sys.executable, "-P", "-m", module, f"{_ARGUMENT}{os.getpid()}:{fd}", *arguments]
        process = _start(command, fd, _environment(os.environ if env is None else env))
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(fd)
    if niceness:
        _add_niceness(process, niceness)
    return Child(process, ours)


def end_well_when_asked() -> None:
    """SIGTERM ends this process with status 0, as long as nobody else listens: there is nothing to finish.

    That is so while it starts, and again when uvicorn has ended everything: it then raises the signal once more, which
    would let a service that stopped in order look as if it had been killed.
    """
    signal.signal(signal.SIGTERM, _end_well)


def _end_well(*_: object) -> None:
    _disregard_further_requests()
    sys.exit(0)


def _disregard_further_requests() -> None:
    """Once asked is enough. Not a handler of ours: when Python ends it gives signals that have one their default action
    back, and a second request in that tenth of a second would end a program that has done all it should with -15."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def become_module(module: str) -> NoReturn:
    """This process goes on as `python -m module`, from the code that we run from; it keeps its id and its terminal."""
    os.execve(sys.executable, [sys.executable, "-P", "-m", module], _environment(os.environ))  # noqa: S606


def started_by_parent() -> bool:
    """Whether `start_module` started this process; for programs that a person may start as well."""
    return len(sys.argv) > 1 and sys.argv[1].startswith(_ARGUMENT)


def parent_socket() -> socket.socket:
    """Called once in the child: its end of the socket. Our own argument is gone from sys.argv afterwards."""
    _, fd = _started_by()
    del sys.argv[1]
    return socket.socket(fileno=fd)


def end_with_parent() -> None:
    """Called in the child, before `parent_socket`: from now on this process ends within a second of its parent's end.

    Not PR_SET_PDEATHSIG: that fires when the *thread* that started us ends, and services start us from pool threads.
    """
    parent, _ = _started_by()
    threading.Thread(target=_watch, args=(parent,), name="end-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    # The parent's id is told, not asked for: it may have died before we came here.
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    os._exit(1)


def _started_by() -> tuple[int, int]:
    if not started_by_parent():
        raise RuntimeError("this module is started by the service or the worker, not by hand")
    pid, fd = sys.argv[1].removeprefix(_ARGUMENT).split(":")
    return int(pid), int(fd)


def _start(command: Sequence[str], fd: int, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # A blocked signal stays blocked through exec: no moment in which Ctrl-C would kill the starting child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(command, pass_fds=(fd,), stdin=subprocess.DEVNULL, env=env)  # noqa: S603
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """The child imports this very code: its folder leads PYTHONPATH, unless it is a folder of installed packages."""
    root = Path(__file__).resolve().parents[1]
    paths = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    if root.name in ("site-packages", "dist-packages") or str(root) in paths:
        return dict(env)
    return {**env, "PYTHONPATH": os.pathsep.join([str(root), *paths])}


def _add_niceness(process: subprocess.Popen[bytes], niceness: int) -> None:
    # From here, not in the child: threads inherit it, and importing numpy already starts some.
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + niceness)
    except (ProcessLookupError, PermissionError):  # it has ended, or may not be niced here: it runs all the same
        return
