"""`charsmith serve`: what starts a program again, and what ends the whole."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from app import supervisor
from app.processes import StopRequest
from app.supervisor import Program, _supervise

LONG = 0.3
"""What counts as a long life here."""


@dataclass
class Life:
    """A child that ends with a status after so many seconds; None: it lives on."""

    seconds: float
    status: int | None
    began: float = field(default_factory=time.monotonic)

    @property
    def process(self) -> "Life":
        return self

    @property
    def socket(self) -> "Life":
        return self

    def poll(self) -> int | None:
        return self.status if time.monotonic() - self.began >= self.seconds else None

    def close(self) -> None: ...


def supervised(monkeypatch: pytest.MonkeyPatch, *lives: tuple[float, int | None]) -> tuple[int, int]:
    """The exit status of the whole, and how often the program was started."""
    left = list(lives)
    stop = StopRequest()
    started: list[str] = []

    def start(module: str, _: Any) -> Any:
        started.append(module)
        seconds, status = left.pop(0)
        if not left:
            stop.set()
        return Life(seconds, status)

    monkeypatch.setattr(supervisor, "start_module", start)
    monkeypatch.setattr(supervisor, "SETTLED_SECONDS", LONG)
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.01)
    timer = threading.Timer(20, stop.set)
    timer.start()
    try:
        return _supervise([Program("worker", "worker")], stop), len(started)
    finally:
        timer.cancel()
        stop.close()


def test_a_program_that_gives_up_on_its_first_start_ends_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supervised(monkeypatch, (0, 3), (0, None)) == (3, 1)


def test_a_program_that_had_been_running_is_started_again_whatever_keeps_it_from_that_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert supervised(monkeypatch, (2 * LONG, -9), (0, 1), (0, 1), (1, None)) == (0, 4)


def test_a_program_that_is_killed_at_its_start_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supervised(monkeypatch, (0, -9), (1, None)) == (0, 2)
