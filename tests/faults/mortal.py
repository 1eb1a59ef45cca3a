"""Runs a function in a process of its own that may be killed at any moment, and collects what it told until then.

Processes are forked from a server that has loaded the store once (multiprocessing's forkserver): each starts in some
milliseconds, and dies as any other.
"""

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.life", "alembic.command", "worker.trainer"])
KILLED = -signal.SIGKILL
LONGEST_LIFE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended, and all that it told."""

    exit_code: int
    told: list[Any]


def run_mortal(body: Callable[..., None], *arguments: Any) -> Death:
    """Call `body(tell, *arguments)` in a process; `tell(message)` has arrived here once it returns."""
    receiver, sender = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_call, args=(sender, body, arguments), daemon=True)
    process.start()
    sender.close()  # the child's alone: its death is the end of the pipe
    told = []
    try:
        while receiver.poll(LONGEST_LIFE_SECONDS):
            try:
                told.append(receiver.recv())
            except (EOFError, OSError):
                break
        else:
            raise AssertionError(f"the process said nothing for {LONGEST_LIFE_SECONDS:.0f} s")
    finally:
        if process.is_alive() and not receiver.poll(0):
            process.kill()
        process.join()
        receiver.close()
    assert process.exitcode is not None
    return Death(process.exitcode, told)


def start_mortal(body: Callable[..., None], *arguments: Any) -> Any:
    """As `run_mortal`, without waiting and without a pipe: the process, for whoever joins it."""
    process = _processes.Process(target=body, args=arguments, daemon=True)
    process.start()
    return process


def barrier(parties: int) -> Any:
    """At which so many processes wait for each other."""
    return _processes.Barrier(parties)


def queue() -> Any:
    """By which processes tell."""
    return _processes.Queue()


def _call(sender: Connection, body: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    body(sender.send, *arguments)
