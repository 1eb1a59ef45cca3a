"""How long steps and evaluations take, and how much of the time is used up.

Knows no network and no plan. The clock is read at reports and around evaluations only; nothing that training computes
depends on it, except the plan of a budget in minutes. All times are in seconds.
"""

from collections.abc import Callable

from worker.recipe import Costs


class Pace:
    """A stopwatch over one attempt that goes on from the seconds of earlier ones."""

    def __init__(self, clock: Callable[[], float], evaluation_steps: float) -> None:
        self._clock = clock
        self._began = self._lap_began = clock()
        self._lap_steps = 0
        self._lap_evaluating = 0.0
        self._evaluation_steps = evaluation_steps
        self._laps = 0
        self.step_seconds = 0.0
        """Of a step, evaluations not counted: the mean of the last lap and what was known before."""
        self.evaluation_seconds: float | None = None
        """Of the last evaluation, what the listener does with it included; None: none was timed."""

    def restore(self, seconds: float, step_seconds: float, evaluation_seconds: float | None) -> None:
        """Go on from what an earlier attempt saw."""
        self._began -= seconds
        self._laps = 2
        self.step_seconds, self.evaluation_seconds = step_seconds, evaluation_seconds

    @property
    def seconds(self) -> float:
        """Used so far."""
        return self._clock() - self._began

    def costs(self) -> Costs:
        """What the recipe plans with."""
        evaluation_seconds = self.evaluation_seconds
        if evaluation_seconds is None:
            evaluation_seconds = self._evaluation_steps * self.step_seconds
        return Costs(self.seconds, self.step_seconds, evaluation_seconds)

    def count_step(self) -> None:
        self._lap_steps += 1

    def count_evaluation(self, began: float) -> None:
        """An evaluation that began at `began` on the clock is over."""
        self.evaluation_seconds = self._clock() - began
        self._lap_evaluating += self.evaluation_seconds

    def now(self) -> float:
        """The clock's own time."""
        return self._clock()

    def lap(self) -> float:
        """Seconds of training since the last lap, evaluations not counted."""
        now = self._clock()
        seconds = max(now - self._lap_began - self._lap_evaluating, 1e-9)
        seen = seconds / max(1, self._lap_steps)
        # The first step allocates and picks kernels: it says nothing of the others, so the second lap replaces it.
        self.step_seconds = seen if self._laps < 2 else (self.step_seconds + seen) / 2
        self._laps += 1
        self._lap_began, self._lap_steps, self._lap_evaluating = now, 0, 0.0
        return seconds
