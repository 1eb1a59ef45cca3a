"""Shows a job's events to a person: a live bar in a terminal, plain lines elsewhere.

Knows only the events' names and fields, as the service sends them.
"""

import math
import time
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from app.terminal import harmless

SAMPLE_CHARACTERS = 76
PLAIN_SECONDS = 5.0
"""Between two plain lines, so that a log of a long job stays readable."""


def bits(loss: float) -> float:
    """Bits per character of a loss in nats per character."""
    return loss / math.log(2)


def describe_progress(data: dict[str, Any]) -> str:
    """Loss, bits per character, speed and time left, in one line."""
    loss = data["train_loss"]
    return (
        f"loss {loss:.3f}  {bits(loss):.3f} bits/char  "
        f"{data['characters_per_second']:,.0f} chars/s  {_clock(data['eta_seconds'])} left"
    )


def _clock(seconds: float | None) -> str:
    minutes, rest = divmod(round(seconds or 0), 60)
    return f"{minutes}:{rest:02d}"


def sample_line(text: str) -> str:
    """A sample on one line, its own line ends shown as slashes."""
    return " / ".join(harmless(line.strip()) for line in text.splitlines() if line.strip())[:SAMPLE_CHARACTERS]


class View(Protocol):
    """Shows one job from its first event to its last."""

    def __enter__(self) -> "View": ...
    def __exit__(self, *exc: object) -> None: ...
    def show(self, kind: str, data: dict[str, Any]) -> None: ...


class _Samples:
    """What both views say of an evaluation: its loss, and the sample that comes with it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._evaluated: dict[str, Any] = {}

    def __enter__(self) -> "_Samples":
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def show(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "evaluation":
            self._evaluated = data
        elif kind == "sample":
            evaluated = self._evaluated.get("step") == data["step"]  # there are samples in between as well
            loss = f"  val loss {self._evaluated['val_loss']:.3f}" if evaluated else ""
            self.console.print(
                f"[bold]step {data['step']:,}[/bold]{loss}  [italic cyan]{escape(sample_line(data['text']))}[/]",
                highlight=False,
                soft_wrap=True,
            )
        elif kind == "setback":
            self.console.print(
                f"[yellow]step {data['step']:,}: the {data['what']} is not a finite number; back to step "
                f"{data['to_step']:,}, learning rate at most {data['learning_rate']:.2g}[/]",
                highlight=False,
                soft_wrap=True,
            )
        elif kind == "status" and data["status"] != "running":
            self.console.print(f"[dim]{data['status']}[/dim]", highlight=False)


class PlainView(_Samples):
    """A line for each evaluation and, in between, one for progress every few seconds."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._shown_at = 0.0

    def show(self, kind: str, data: dict[str, Any]) -> None:
        super().show(kind, data)
        if kind == "progress" and time.monotonic() - self._shown_at >= PLAIN_SECONDS:
            self._shown_at = time.monotonic()
            self.console.print(f"{data['fraction']:4.0%}  {describe_progress(data)}", highlight=False, soft_wrap=True)


class LiveView(_Samples):
    """A bar that moves, with the samples scrolling by above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar = Progress(
            BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.description}"), console=console
        )
        self._task = self._bar.add_task("waiting for the worker", total=1.0)

    def __enter__(self) -> "LiveView":
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def show(self, kind: str, data: dict[str, Any]) -> None:
        super().show(kind, data)
        if kind == "progress":
            self._bar.update(self._task, completed=data["fraction"], description=describe_progress(data))


def view_for(console: Console) -> View:
    """A live view in a terminal, plain lines in a pipe or a log."""
    return LiveView(console) if console.is_terminal else PlainView(console)
