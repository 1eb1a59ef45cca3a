"""Processes forked from a server that has loaded what they need: started in milliseconds, dying as any other.

Both ends: `ForkServer` asks, `forked` is the server's loop. Knows nothing of what is loaded or done. Linux alone, since
it takes descriptors that stand for processes: a signal so reaches the process that it is meant for, or nobody.
Invariants: of the server's open files a forked process has its socket, its line and the standard ones; it is gone when
the server is; the server is gone when whoever started it is, or has closed it.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from app.processes import start_module

_PR_SET_PDEATHSIG = 1
_NUMBER = struct.Struct("q")
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_LOOK_MILLISECONDS = 100


def can_fork() -> bool:
    """Whether this system has all that it takes; a container may forbid it."""
    if sys.platform != "linux":
        return False
    try:
        itself = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(itself, 0)  # none: a look
        finally:
            os.close(itself)
    except OSError:
        return False
    return True


class ForkServer:
    """A server that runs `module`; it may still be loading when it is asked. For one thread; `close` it at the end."""

    def __init__(self, module: str, *, niceness: int, env: Mapping[str, str]) -> None:
        self._server = start_module(module, niceness=niceness, env=env)
        self._last: ForkedProcess | None = None
        self._has_forked = False

    @property
    def pid(self) -> int:
        return self._server.process.pid

    def fork(self) -> tuple["ForkedProcess", socket.socket]:
        """A process, which may not be there yet, and our end of the socket to it. Raises OSError without a server."""
        ours, theirs = socket.socketpair()
        line, their_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with closing(theirs), closing(their_line):
                socket.send_fds(self._server.socket, [b"f"], [theirs.fileno(), their_line.fileno()])
        except BaseException:
            ours.close()
            line.close()
            raise
        self._has_forked = self._has_forked or (self._last is not None and self._last.was_forked)
        self._last = ForkedProcess(self._server.process, line)
        return self._last, ours

    def is_alive(self) -> bool:
        return self._server.process.poll() is None

    def has_given_up(self) -> bool:
        """Whether it has ended by itself, and forked nothing."""
        status = self._server.process.poll()
        return status is not None and status > 0 and not self._has_forked and not (self._last and self._last.was_forked)

    def close(self) -> None:
        """It is gone, and what it forked ends."""
        self._server.end()


class ForkedProcess:
    """What `subprocess.Popen` is for others. Any thread may call.

    On its line the process tells its id and the descriptor that stands for it, then the server tells how it ended. The
    line's end without that tells that both are gone.
    """

    def __init__(self, server: subprocess.Popen[bytes], line: socket.socket) -> None:
        self._server = server
        self._line = line
        self._lock = threading.Lock()
        self._introduced = threading.Event()
        self._ended = threading.Event()
        self._pid: int | None = None
        self._descriptor: int | None = None
        self._status = 0
        threading.Thread(target=self._hear, name="hears-of-process", daemon=True).start()

    @property
    def was_forked(self) -> bool:
        """As far as it has been heard of."""
        return self._pid is not None

    @property
    def pid(self) -> int:
        """Its id, waited for. Raises ProcessLookupError if it was never there."""
        self._introduced.wait()
        if self._pid is None:
            raise ProcessLookupError("the process was not forked")
        return self._pid

    def kill(self) -> None:
        """SIGKILL. One that is not there yet never will be: the server, still loading, is killed in its place."""
        with self._lock:
            if self._ended.is_set():
                return
            if self._descriptor is None:
                self._server.kill()
                return
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self) -> int:
        """How it ended, as subprocess has it. Blocks."""
        self._ended.wait()
        return self._status

    def _hear(self) -> None:
        status = None
        with self._line:
            while status is None:
                data, descriptors, _, _ = socket.recv_fds(self._line, _NUMBER.size, 1, _CLOSE_ON_EXEC)
                if descriptors:
                    with self._lock:
                        (self._pid,), (self._descriptor,) = _NUMBER.unpack(data), descriptors
                    self._introduced.set()
                elif data:
                    (status,) = _NUMBER.unpack(data)
                elif self._descriptor is None:  # never forked: the server's own end says why
                    status = self._server.wait()
                else:  # killed with the server, by the kernel
                    gone = select.poll()
                    gone.register(self._descriptor, select.POLLIN)
                    gone.poll()  # it has let its files go already
                    status = -signal.SIGKILL
        with self._lock:
            self._status = status
            self._ended.set()
            if self._descriptor is not None:
                os.close(self._descriptor)
        self._introduced.set()


@dataclass(frozen=True, slots=True)
class _Fork:
    """A process that the server has forked, which is waited for."""

    pid: int
    line: socket.socket


def forked(requests: socket.socket) -> socket.socket | None:
    """The server's loop: returns in each process that it forks, with the socket to whoever asked; in the server with
    None, once nobody can ask any more.

    To be called by the only thread of a process that holds no device.
    """
    gc.collect()
    gc.freeze()  # so that collecting garbage copies no page that could be shared
    server = os.getpid()
    running: dict[int, _Fork] = {}
    poller = select.poll()
    poller.register(requests, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor in running:
                poller.unregister(descriptor)
                _tell_end(descriptor, running.pop(descriptor))
                continue
            if (asked := _request(requests)) is None:
                return None
            connection, line = asked
            if (pid := os.fork()) == 0:
                _begin(server, line, [requests.detach(), *running, *(fork.line.detach() for fork in running.values())])
                return connection
            connection.close()
            process = os.pidfd_open(pid)
            running[process] = _Fork(pid, line)
            poller.register(process, select.POLLIN)


@contextmanager
def ending_with(requests: socket.socket) -> Iterator[None]:
    """Within, this process ends when whoever started it has. Afterwards `forked` sees to that; no thread is left."""
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(requests, done), name="end-with-parent", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def _watch(requests: socket.socket, done: threading.Event) -> None:
    poller = select.poll()
    poller.register(requests, 0)  # for its end alone: what is asked meanwhile waits
    while not done.is_set():
        if poller.poll(_LOOK_MILLISECONDS):
            os._exit(1)


def _request(requests: socket.socket) -> tuple[socket.socket, socket.socket] | None:
    """The two ends that a process is to have; None when nobody is there any more."""
    data, descriptors, _, _ = socket.recv_fds(requests, 1, 2, _CLOSE_ON_EXEC)
    if not data:
        return None
    connection, line = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    return connection, line


def _tell_end(descriptor: int, fork: _Fork) -> None:
    _, status = os.waitpid(fork.pid, 0)
    os.close(descriptor)
    with closing(fork.line), contextlib.suppress(OSError):  # nobody waits for it
        fork.line.send(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _begin(server: int, line: socket.socket, not_ours: list[int]) -> None:
    """The first acts of a forked process: bound to its server, rid of what is not its own, known to whoever asked."""
    # The kernel means the thread that forked it: the server has but one.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot be bound to the server")
    if os.getppid() != server:  # it has ended before
        os._exit(1)
    for descriptor in not_ours:
        os.close(descriptor)
    itself = os.pidfd_open(os.getpid())
    try:
        socket.send_fds(line, [_NUMBER.pack(os.getpid())], [itself])
    except OSError:  # nobody wants it any more
        os._exit(1)
    os.close(itself)
    line.detach()  # open as long as it lives, so that the line's end tells of its death
