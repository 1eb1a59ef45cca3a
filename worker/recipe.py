"""When training ends, evaluates and reports, and how fast it learns meanwhile: the plan of a job.

Knows no network and no clock: seconds come in as numbers. Invariant: a plan is a value; every decision about a step
depends on the plan and the step alone, so that a training resumed under its recorded plan goes the same way. Budgets in
epochs and steps have one plan; a budget in minutes is planned again from what steps were seen to cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from models.config import TrainingConfig

WARMUP_STEPS = 50
FINAL_RATE = 0.02
"""The cosine ends at this share of the peak: "about zero"."""

EVALUATIONS = 15
FEWEST_EVALUATIONS = 3
EVALUATION_SHARE = 0.1
"""Evaluations take at most about a tenth of the time, unless there would be fewer than three."""
MOST_STEPS_BETWEEN_EVALUATIONS = 2_000
VALIDATION_CHARACTERS_PER_MINUTE = 200_000
"""Of the budget: 16 lanes of a GRU 1x512 take 4 s for so many (two cores, float32)."""
FEWEST_VALIDATION_CHARACTERS = 8_192
REPORTS = 64
"""Progress is told about so many times in a run, and at steps 1, 2, 4, 8, ... before that."""
UNKNOWN_STEPS = 10_000
"""What a budget in minutes is taken for until steps have been timed."""
FIRST_TIMED_STEP = 2
"""The first step allocates and picks kernels: it took fifty times as long as the others on a busy machine."""


def budget_steps(training: TrainingConfig, epoch_steps: int) -> int | None:
    """The budget in steps, `epoch_steps` being those of one pass; None for a budget in minutes."""
    if training.epochs is not None:
        return max(1, round(training.epochs * epoch_steps))
    return training.steps


def most_validation_characters(training: TrainingConfig, epoch_steps: int) -> int:
    """How much of the validation part a run of this length can afford to be judged on, at several evaluations.

    Ten megabytes of text trained on for ten seconds would else be evaluated for a minute.
    """
    steps = budget_steps(training, epoch_steps)
    if steps is None:
        assert training.minutes is not None, "one of the three is the budget"
        return max(FEWEST_VALIDATION_CHARACTERS, int(training.minutes * VALIDATION_CHARACTERS_PER_MINUTE))
    return max(FEWEST_VALIDATION_CHARACTERS, steps * training.batch_size * training.sequence_length // 2)


def guess_evaluation_steps(training: TrainingConfig, lanes: int, characters_a_lane: float) -> float:
    """What an evaluation of so many time steps costs, in steps, as long as none was timed.

    A recurrent network takes its time per time step, hardly per lane up to some 32; a step goes forward and back, about
    three times the work of forward alone.
    """
    return 1 + characters_a_lane / (3 * training.sequence_length * max(1.0, lanes / 32))


class Segment(NamedTuple):
    """From `from_step` on, every step uses up `fraction_per_step` of the budget; after `last_step` nothing is left."""

    from_step: int
    from_fraction: float
    fraction_per_step: float
    last_step: int


@dataclass(frozen=True, slots=True)
class Costs:
    """Seen so far: `seconds` used of the budget, and what one more step or evaluation takes."""

    seconds: float
    step_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The course of a training, known at every step."""

    segments: tuple[Segment, ...]
    """All that were planned, oldest first: the learning rate of the whole run."""
    evaluate_at: int
    """The next step after which the network is evaluated and saved; the last step is one."""
    report_at: int
    """The next step after which progress is told (and a budget in minutes planned anew)."""

    @property
    def steps(self) -> int:
        """The last step."""
        return self.segments[-1].last_step

    def fraction(self, step: int) -> float:
        """Share of the budget used after `step` steps, 0 to 1."""
        current = self.segments[-1]
        if step >= current.last_step:
            return 1.0
        return current.from_fraction + (step - current.from_step) * current.fraction_per_step

    def learning_rate(self, step: int, peak: float) -> float:
        """Of the update that follows `step` steps: warm-up over 50 steps (a tenth of a short run), then a cosine.

        Warm-up is linear; the cosine, over the whole budget, is Loshchilov and Hutter's (2016, "SGDR"), no restarts.
        """
        warmup_steps = min(WARMUP_STEPS, max(1, self.steps // 10))
        cosine = (1 + math.cos(math.pi * self.fraction(step))) / 2
        return peak * min(1.0, (step + 1) / warmup_steps) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    def as_dict(self) -> dict[str, Any]:
        return {
            "segments": [list(s) for s in self.segments],
            "evaluate_at": self.evaluate_at,
            "report_at": self.report_at,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(tuple(Segment(*s) for s in values["segments"]), values["evaluate_at"], values["report_at"])


class Recipe:
    """Makes the plans of one job. `epoch_steps` are a pass's steps; an evaluation may cost `evaluation_steps` steps."""

    def __init__(self, training: TrainingConfig, epoch_steps: int, evaluation_steps: float) -> None:
        self._training = training
        self._epoch_steps = epoch_steps
        self._guess = Costs(0.0, 1.0, evaluation_steps)

    def first_plan(self) -> Plan:
        """The plan before the first step."""
        steps = budget_steps(self._training, self._epoch_steps) or UNKNOWN_STEPS
        return self._plan([], Segment(0, 0.0, 1 / steps, steps), step=0, evaluated=0, costs=self._guess)

    def next_plan(self, plan: Plan, step: int, *, evaluated: int, costs: Costs) -> Plan:
        """The plan after `step`, where a report was due or the network evaluated (`evaluated` is the last such step).

        `costs` count for a budget in minutes alone.
        """
        anew = self._anew(plan, step, evaluated, costs)
        due = evaluated != step == plan.evaluate_at  # and stays so, whatever is planned
        return replace(anew, evaluate_at=step) if due else anew

    def eta_seconds(self, plan: Plan, step: int, evaluated: int, costs: Costs) -> float:
        """What is left to do takes so long."""
        if self._training.minutes is not None:
            return max(0.0, 60 * self._training.minutes - costs.seconds)
        steps_left = plan.steps - step
        evaluations_left = math.ceil(steps_left / max(1, plan.evaluate_at - evaluated))
        return steps_left * costs.step_seconds + evaluations_left * costs.evaluation_seconds

    def _anew(self, plan: Plan, step: int, evaluated: int, costs: Costs) -> Plan:
        if self._training.minutes is None or step < FIRST_TIMED_STEP or step >= plan.steps:
            return self._plan(plan.segments[:-1], plan.segments[-1], step, evaluated, self._guess)
        costs = self._cautious(costs, 60 * self._training.minutes, evaluated)
        last_step = step + self._steps_left(step, 60 * self._training.minutes, costs)
        fraction = plan.fraction(step)
        per_step = (1 - fraction) / max(1, last_step - step)
        return self._plan(plan.segments, Segment(step, fraction, per_step, last_step), step, evaluated, costs)

    def _cautious(self, costs: Costs, budget_seconds: float, evaluated: int) -> Costs:
        """A guess at what an evaluation takes must not use up the time for training."""
        if evaluated:
            return costs
        return replace(costs, evaluation_seconds=min(costs.evaluation_seconds, EVALUATION_SHARE * budget_seconds))

    def _steps_left(self, step: int, budget_seconds: float, costs: Costs) -> int:
        """How many steps fit in what is left, with the evaluations between them and the one at the end."""
        seconds_left = budget_seconds - costs.seconds - costs.evaluation_seconds
        step_seconds = max(costs.step_seconds, 1e-6)
        most = seconds_left / step_seconds
        if most < 1:
            return 0
        every = self._steps_between_evaluations(step + int(most), costs)
        return max(1, int(seconds_left / (step_seconds + costs.evaluation_seconds / every)))

    def _plan(self, earlier: Sequence[Segment], segment: Segment, step: int, evaluated: int, costs: Costs) -> Plan:
        last = segment.last_step
        every = self._steps_between_evaluations(last, costs)
        if self._training.evaluate_every is not None:
            evaluate_at = (step // every + 1) * every
        else:
            evaluate_at = max(step + 1, evaluated + every)
            if evaluate_at > last - every / 2:  # two evaluations close together tell nothing new
                evaluate_at = last
        report_at = step + max(1, min(step, last // REPORTS))
        return Plan((*earlier, segment), min(evaluate_at, last), min(report_at, last))

    def _steps_between_evaluations(self, steps: int, costs: Costs) -> int:
        if self._training.evaluate_every is not None:
            return self._training.evaluate_every
        affordable = costs.evaluation_seconds / (EVALUATION_SHARE * max(costs.step_seconds, 1e-6))
        wanted = max(math.ceil(steps / EVALUATIONS), math.ceil(affordable))
        return max(1, min(wanted, -(-steps // FEWEST_EVALUATIONS), MOST_STEPS_BETWEEN_EVALUATIONS))
