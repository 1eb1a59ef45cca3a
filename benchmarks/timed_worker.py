"""`python -m benchmarks.timed_worker FILE`: a real worker that writes down when it came by what.

Each line of FILE is `[place, job, seconds]`, seconds of the clock that all processes of the machine share. Changes
nothing but that: what is wrapped is called as it was.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from app.settings import load_settings
from app.store import claims
from app.store.claims import Claim
from worker.__main__ import main as work
from worker.attempts import Attempts
from worker.events import Event
from worker.executor import Executor, Training
from worker.launch import TrainingTask

ASKED, CLAIMED, TOLD, THERE, STARTED, FINISHED, DONE = PLACES = (
    *("asked", "claimed", "told", "there", "started", "finished", "done"),
)
"""A claim is asked for; had; its training process told; that says its first word; has loaded everything; has told that
training is over; the job's end is recorded."""


class Notes:
    """Of one worker, whose jobs have a thread each."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._mine = threading.local()

    def note(self, place: str, job: str | None = None, seconds: float | None = None) -> None:
        seconds = time.monotonic() if seconds is None else seconds
        with self._lock:
            self._file.write(json.dumps([place, job or self._mine.job, seconds]) + "\n")

    def claiming(self, claim_next: Callable[..., Claim | None]) -> Callable[..., Claim | None]:
        def timed(*arguments: Any, **options: Any) -> Claim | None:
            asked = time.monotonic()
            if (claim := claim_next(*arguments, **options)) is not None:
                self.note(ASKED, claim.job.id, asked)
                self.note(CLAIMED, claim.job.id)
            return claim

        return timed

    def running(self, run: Callable[[Attempts, Claim], None]) -> Callable[[Attempts, Claim], None]:
        def timed(attempts: Attempts, claim: Claim) -> None:
            self._mine.job = claim.job.id
            run(attempts, claim)
            self.note(DONE)

        return timed

    def starting(self, start: Callable[[Executor, TrainingTask], Training]) -> Callable[..., Training]:
        def timed(executor: Executor, task: TrainingTask) -> Training:
            self.note(TOLD)
            return start(executor, task)

        return timed

    def hearing(self, events: Callable[[Training], Iterator[Event]]) -> Callable[[Training], Iterator[Event]]:
        places = {"Ticked": THERE, "Started": STARTED, "Finished": FINISHED}

        def timed(training: Training) -> Iterator[Event]:
            told = set()
            for event in events(training):
                place = places.get(type(event).__name__)
                if place is not None and place not in told:
                    told.add(place)
                    self.note(place)
                yield event

        return timed


def main() -> None:
    notes = Notes(open(sys.argv.pop(1), "a", buffering=1))  # noqa: SIM115 - it is open as long as the process lives
    claims.claim_next = notes.claiming(claims.claim_next)
    Attempts.run = notes.running(Attempts.run)
    if load_settings().executor == "ray":
        from worker.ray_cluster import RayCluster as Starter
        from worker.ray_training import RayTraining as Trained
    else:
        from worker.launch import TrainingChild as Trained
        from worker.starting import TrainingStarter as Starter
    Starter.start = notes.starting(Starter.start)
    Trained.events = notes.hearing(Trained.events)
    work()


if __name__ == "__main__":
    main()
