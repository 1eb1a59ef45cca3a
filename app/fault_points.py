"""Named places at which a test ends, breaks, freezes or delays this process: `FAULT=name:nth:action`.

For tests alone, and for whoever wants to see one of them happen: several faults are separated by commas, `nth` counts
this process's passings of the place from 1, actions are `kill` (SIGKILL), `stop` (SIGSTOP), `raise` and
`sleep=SECONDS`. Knows nothing of what happens at a place. The plan is the one thing that a module of ours holds
globally: a place may be anywhere, and must cost nothing where nobody tests. Invariant: without `arm` a place does
nothing, and `arm` takes known names alone.
"""

import logging
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

log = logging.getLogger(__name__)

VARIABLE = "FAULT"
SHAPE = "name:nth:action, as in checkpoint.named:1:kill"

POINTS: Mapping[str, str] = MappingProxyType(
    {
        "blob.opened": "stored bytes have their row, and no chunk yet",
        "blob.chunk": "a chunk of stored bytes is committed",
        "blob.written": "stored bytes are complete, and named by no row",
        "blob.dropped": "bytes that no row names any more are marked so, all of their chunks there",
        "blob.chunks_removed": "some chunks of dropped bytes are gone",
        "blob.removed": "dropped bytes are gone",
        "blob.swept": "retention or the sweep has come to bytes to remove",
        "space.given_back": "some pages of the file were given back",
        "corpus.naming": "a text is named by its row, not committed",
        "corpus.named": "a text is visible, its upload not answered",
        "corpus.deleting": "a text's row is gone, not committed",
        "corpus.deleted": "a text is invisible, its bytes there",
        "model.naming": "an uploaded model is named by its rows, not committed",
        "model.named": "an uploaded model is visible, its upload not answered",
        "model.deleting": "a model's rows are gone, not committed",
        "model.deleted": "a model is invisible, its bytes there",
        "job.queueing": "a job and its idempotency key have their rows, not committed",
        "job.queued": "a job is queued, its request not answered",
        "job.deleting": "a job's row is gone, not committed",
        "job.deleted": "a job is invisible, the bytes of its resume point there",
        "claim.taking": "a job is a worker's, not committed",
        "claim.taken": "a job is a worker's, who does not know it yet",
        "resume_point.read": "an attempt has read where it goes on from, or that it starts anew",
        "attempt.rewound": "metrics later than where an attempt goes on from are gone",
        "started.recording": "what was planned is written, not committed",
        "started.recorded": "what was planned is stored",
        "progress.recording": "a step's progress, metrics and event are written, not committed",
        "progress.recorded": "a step's progress is stored",
        "evaluation.recording": "a validation loss is written, not committed",
        "evaluation.recorded": "a validation loss is stored",
        "sample.recorded": "what the network writes is stored",
        "checkpoint.naming": "checkpoint and resume point are named by their rows, not committed",
        "checkpoint.named": "checkpoint and resume point are visible, those that they replace not removed",
        "checkpoint.replaced": "the resume point of before is removed, what retention drops is not",
        "lease.renewing": "a heartbeat is written, not committed",
        "lease.renewed": "a heartbeat is stored",
        "lease.releasing": "a job is given back, not committed",
        "lease.released": "a job is given back",
        "lease.taking_over": "a job of a worker that shows no life is queued again, not committed",
        "lease.taken_over": "a job of a worker that shows no life is queued again",
        "finish.ending": "a job has its end, not committed",
        "finish.ended": "a job has its end, its worker not yet gone on",
        "migration.statement": "a statement of a migration is about to run",
        "training.event": "the training process is about to tell something (ticks aside)",
    }
)


class FaultError(ValueError):
    """The variable is malformed; the message says how, and what is allowed."""


class FaultRaised(RuntimeError):
    """What `raise` raises: an error that nobody foresaw."""


@dataclass(frozen=True, slots=True)
class Fault:
    """At the `nth` passing of a place, something happens."""

    name: str
    nth: int
    action: Callable[[], None]


class Plan:
    """What is to happen where. Counts passings, from any thread."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._faults = faults
        self._passings: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def passings(self) -> Mapping[str, int]:
        """How often each place was passed so far."""
        return MappingProxyType(self._passings)

    def pass_by(self, name: str) -> None:
        """Count a passing, and let happen what is due."""
        assert name in POINTS, f"{name} is no fault point"
        with self._lock:
            self._passings[name] += 1
            nth = self._passings[name]
        for fault in self._faults:
            if (fault.name, fault.nth) == (name, nth):
                fault.action()


_plan: Plan | None = None


def fault_point(name: str) -> None:
    """This process passes the place."""
    if _plan is not None:
        _plan.pass_by(name)


def arm(environment: Mapping[str, str]) -> None:
    """From now on what `FAULT` says happens; without it, nothing. Raises FaultError."""
    global _plan
    text = environment.get(VARIABLE, "").strip()
    _plan = Plan(tuple(map(parse_fault, text.split(",")))) if text else None
    if _plan is not None:
        log.warning("%s=%s: this process will not live as others do", VARIABLE, text)


def count_passings() -> Mapping[str, int]:
    """From now on nothing happens, but passings are counted: which places does a scenario come by?"""
    global _plan
    _plan = Plan(())
    return _plan.passings


def parse_fault(text: str) -> Fault:
    """The fault of `name:nth:action`. Raises FaultError."""
    parts = text.strip().split(":")
    if len(parts) != 3:
        raise FaultError(f"{VARIABLE}: {text!r} is not {SHAPE}")
    name, nth, action = parts
    if name not in POINTS:
        raise FaultError(f"{VARIABLE}: no fault point {name!r}; known are {', '.join(POINTS)}")
    if not (nth.isascii() and nth.isdigit() and len(nth) < 10 and int(nth) > 0):
        raise FaultError(f"{VARIABLE}: the passing of {name} must be a whole number from 1 on, not {nth!r}")
    return Fault(name, int(nth), _action(action, name))


def _action(text: str, name: str) -> Callable[[], None]:
    if text == "kill":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    if text == "stop":
        return lambda: os.kill(os.getpid(), signal.SIGSTOP)
    if text == "raise":
        return lambda: _raise(name)
    kind, _, seconds = text.partition("=")
    if kind == "sleep" and (duration := _seconds(seconds)) is not None:
        return lambda: time.sleep(duration)
    raise FaultError(
        f"{VARIABLE}: no action {text!r} at {name}; known are kill, stop, raise, and sleep=SECONDS with 0 to 86400"
    )


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= 86_400 else None


def _raise(name: str) -> None:
    raise FaultRaised(f"{VARIABLE} at {name}")
