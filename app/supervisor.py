"""`charsmith serve`: the service and one worker as two child processes, started again when they die.

Knows nothing of what they do. A child that gives up by itself at once (a taken port, a malformed setting) would do so
again: that ends the whole, with its exit status. Invariant: both children are gone when `serve` returns.
"""

import logging
import time
from dataclasses import dataclass

from app.processes import Child, StopRequest, start_module

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
SETTLED_SECONDS = 10.0
"""A child that lived so long had started properly."""
LONGEST_DELAY_SECONDS = 30.0
GRACE_SECONDS = 10.0
"""For resume points and the last events of open streams; docker's default is the same."""


@dataclass
class Program:
    """One child, through all its restarts."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    child: Child | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    settled: bool = False
    """Whether it has ever lived for long: it can be started, and what keeps it from that now may pass."""

    def start(self, now: float) -> None:
        self.child = start_module(self.module, self.arguments)
        self.started_at = now

    def ended(self, now: float) -> int | None:
        """The exit status of a child that has just ended; plans its restart."""
        if self.child is None or (status := self.child.process.poll()) is None:
            return None
        self.child.socket.close()
        self.child = None
        lived_long = now - self.started_at > SETTLED_SECONDS
        self.settled = self.settled or lived_long
        self.failures = 0 if lived_long else self.failures + 1
        self.start_at = now + min(LONGEST_DELAY_SECONDS, 2.0**self.failures - 1)
        return status


def serve() -> int:
    """Run until SIGTERM, SIGINT or a child that cannot start; the exit status."""
    stop = StopRequest()
    stop.listen()
    programs = [Program("service", "app.cli", ("api",)), Program("worker", "worker")]
    try:
        return _supervise(programs, stop)
    finally:
        _end_all([p.child for p in programs if p.child is not None])


def _supervise(programs: list[Program], stop: StopRequest) -> int:
    while not stop.is_set():
        now = time.monotonic()
        for program in programs:
            status = program.ended(now)
            if status is not None and status > 0 and program.failures == 1 and not program.settled:
                return status
            if status is not None:
                log.error("the %s ended with %d, is started again", program.name, status)
            if program.child is None and now >= program.start_at:
                program.start(now)
        stop.wait(POLL_SECONDS)
    return 0


def _end_all(children: list[Child]) -> None:
    for child in children:  # all at once, so that the graces run side by side
        child.process.terminate()
    for child in children:
        child.end(GRACE_SECONDS)
