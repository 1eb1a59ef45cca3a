"""An attempt's training on a node of a Ray cluster, as its dispatcher has it: an actor, and a stream of events.

Knows no database. Invariant: whatever becomes of Ray, of the head and of the node, `kill` and `close` do not wait for
them and `events` ends within seconds of a kill; what the actor may compute meanwhile is recorded by nobody.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError

from worker.events import Event, Finished, Saved
from worker.executor import NoPlace
from worker.launch import DISK_FULL, ChildCrashed, TrainingFailed, TrainingRefusal, TrainingTask
from worker.ray_actor import Crashed, installed_version
from worker.ray_places import Place

log = logging.getLogger(__name__)

EVENTS_AHEAD = 8
"""Which training may tell before they are taken; then it waits. Two of them may be checkpoints."""
PLACE_SECONDS = 90.0
"""Until an actor answers from its node: others may have what it needs, and a process that looks for a GPU loads
PyTorch first."""
RECEIVE_SECONDS = 180.0
"""Until it has its text. Both together are less than an attempt has to show life."""
LOOK_SECONDS = 0.5
"""Between two looks at whether it has been killed meanwhile."""
KILLED_SECONDS = 2.0
"""Which Ray has to say that an actor is gone; then it is taken to be. An order may be lost with a head or a network."""
CLEAN_SECONDS = 3.0
"""Which an actor has to be ready for the next training, when one has said its last word."""
FAULTS = (ConnectionError, RuntimeError, ValueError, RayError)
"""What Ray raises when it cannot do what it is asked for."""


_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Seat:
    """An actor at its place. `is_new`: it has trained nothing yet, and its process is perhaps not there."""

    actor: Any
    place: Place
    is_new: bool


class RayTraining:
    """See `worker.executor.Training`."""

    def __init__(self, task: TrainingTask, text: Any, seat: Seat, let_go: Callable[[bool], None]) -> None:
        """`text` are the pieces of the corpus in Ray's object store. `let_go` is told when it is over, and whether the
        seat is as good as before."""
        self._task: TrainingTask | None = task
        self._text = text
        self._number = next(_NUMBERS)
        self._actor = seat.actor
        self._place = seat.place
        self._is_new = seat.is_new
        self._let_go = let_go
        self._events: Any = None
        self._saved = self._has_last_word = False
        self._lock = threading.Lock()
        self._killed_at: float | None = None
        self._is_over = False

    def events(self) -> Iterator[Event]:
        self._begin()
        while True:
            try:
                message = self._next()
            except StopIteration:
                raise ChildCrashed(1, "the training ended without a last word") from None
            except RayTaskError as error:
                raise ChildCrashed(1, _told(error)) from error
            except RayError as error:
                raise self._loss(error) from error
            if isinstance(message, Crashed):
                raise ChildCrashed(message.exit_code, out_of_memory=message.out_of_memory)
            self._has_last_word = isinstance(message, Finished | TrainingRefusal)
            if isinstance(message, TrainingRefusal):
                if message.code == DISK_FULL:
                    self._place.refuse(message.detail)
                raise TrainingFailed(message)
            self._saved = self._saved or isinstance(message, Saved)
            yield message
            if self._has_last_word:
                return

    def request_pause(self) -> None:
        with suppress(*FAULTS):  # it is gone: `events` says so
            self._actor.pause.remote(self._number)

    def kill(self) -> None:
        with self._lock:
            if not self._is_over:  # else the actor may be another training's
                self._killed_at = time.monotonic()
                order_end(self._actor)

    def close(self) -> None:
        is_ready = False
        if self._has_last_word:  # it is about to remove its files
            with suppress(*FAULTS):
                ray.get(self._events.completed(), timeout=CLEAN_SECONDS)
                is_ready = True
        with self._lock:
            self._is_over = True
            is_ready = is_ready and self._killed_at is None
        self._let_go(is_ready)

    def _begin(self) -> None:
        """Raises NoPlace: what happens before training has begun is no fault of the job, and it is the node's; unless
        somebody has killed it."""
        assert self._task is not None, "events are told once"
        if self._is_new:
            self._ask_for_place(self._task.device)
        if fault := self._answer("receive", RECEIVE_SECONDS, self._number, self._task, self._text):
            raise self._no_place(fault)
        self._is_new = False
        self._task = None  # a resume point may be large, and is there now
        ahead = {"num_returns": "streaming", "_generator_backpressure_num_objects": EVENTS_AHEAD}
        try:
            self._events = self._actor.events.options(**ahead).remote()
        except FAULTS as error:
            raise self._no_place(_told(error)) from error
        log.info("training begins on node %s (%s)", self._place.node.address, self._place.node.id)

    def _ask_for_place(self, device: str) -> None:
        """Raises NoPlace."""
        answer, ours = self._answer("place", PLACE_SECONDS, device), installed_version()
        if fault := answer["fault"]:
            raise self._no_place(f"{answer['name']} says {fault}")
        if answer["version"] != ours:
            raise self._no_place(f"{answer['name']} has Charsmith {answer['version']}, and the dispatcher {ours}")

    def _answer(self, method: str, seconds: float, *arguments: Any) -> Any:
        """What the actor says to a call. Raises NoPlace when it says nothing for so long, or cannot."""
        until = time.monotonic() + seconds
        try:
            said = getattr(self._actor, method).remote(*arguments)
        except FAULTS as error:
            raise self._no_place(_told(error)) from error
        while not ray.wait([said], timeout=LOOK_SECONDS)[0]:
            self._look()
            if time.monotonic() > until:
                # An actor that does not begin waits for what others have taken on its node, or for a slow start.
                raise self._no_place(f"nothing came of `{method}` within {seconds:.0f} s", is_busy=method == "place")
        try:
            return ray.get(said, timeout=seconds)
        except Exception as error:  # whatever is raised there: by Ray, or for what is not installed
            if self._is_new or self._killed_at is not None:
                raise self._no_place(_told(error)) from error
            self._place.suspect()
            raise NoPlace(f"its place was lost: {_told(error)}") from error

    def _no_place(self, why: str, *, is_busy: bool = False) -> NoPlace | ChildCrashed:
        if self._killed_at is not None:  # that is why
            return ChildCrashed(-9, "the training was killed before it began")
        if is_busy:
            self._place.wait_for_others(why)
        else:
            self._place.refuse(why)
        return NoPlace(f"no training can begin on node {self._place.node.address}: {why}")

    def _next(self) -> Any:
        """What it says next. Raises StopIteration, RayError; ChildCrashed when it was killed and nobody says so."""
        while not ray.wait([self._events], timeout=LOOK_SECONDS)[0]:
            self._look()
        message = next(self._events)
        while True:
            try:
                return ray.get(message, timeout=LOOK_SECONDS)
            except GetTimeoutError:
                self._look()

    def _look(self) -> None:
        if self._killed_at is not None and time.monotonic() - self._killed_at > KILLED_SECONDS:
            self._place.suspect()
            raise ChildCrashed(-9, "the training was killed, and Ray does not say that it is gone")

    def _loss(self, error: RayError) -> ChildCrashed | NoPlace:
        """What to make of an actor that is gone."""
        self._place.suspect()
        if isinstance(error, OutOfMemoryError) and not self._saved and self._place.is_shared():
            # Ray ends whoever came last when a node runs short of memory, and not who took it.
            return NoPlace(f"its node had no memory left for it: {_told(error)}")
        return ChildCrashed(1, _told(error))


def order_end(actor: Any) -> None:
    """The actor is to end, and what it trains. Nobody waits for it: without a head the order waits for one, and whoever
    gives it keeps a lease meanwhile."""
    try:
        threading.Thread(target=_order_end, args=(actor,), name="end of an actor", daemon=True).start()
    except RuntimeError:  # no more threads may be had
        log.exception("an actor could not be ended, and ends with its dispatcher")


def _order_end(actor: Any) -> None:
    try:
        ray.kill(actor)
    except FAULTS as error:
        log.warning("Ray does not end an actor: %s", _told(error))


def _told(error: BaseException) -> str:
    """In a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
