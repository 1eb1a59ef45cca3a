"""Whatever is read, rows that write keep their share of the time."""

import math

import pytest

from app.generation.scoring import Scoring
from app.generation.turns import take_turn
from models.engine import READING_SHARE, TURN_SECONDS, Engine
from models.rows import RowRequest
from tests.unit.test_engine import INFO, Timed
from tests.unit.test_scorer import text_of
from tests.unit.test_scoring import Stage

CHARACTER = 1 / 8192
"""Seconds that one takes, written or read."""


class House:
    """Engines of several models and the scores, all on one clock: what one of them takes, nobody else has."""

    def __init__(self, engines: int) -> None:
        self.steppers = [Timed() for _ in range(engines)]
        self.engines = [Engine(stepper, INFO, clock=self.now) for stepper in self.steppers]
        self.stage = Stage(step_seconds=CHARACTER)
        self.stage.scoring = Scoring(self.stage.shelf, self.stage.told, clock=self.now)  # type: ignore[arg-type]

    def now(self) -> float:
        return sum(stepper.now for stepper in self.steppers) + self.stage.stepper.now

    def run(self, turns: int) -> tuple[float, float]:
        """Seconds that rows wrote, and that everything else took."""
        began, before = self.now(), self.written()
        for _ in range(turns):
            list(take_turn(self.engines, self.stage.scoring))
        wrote = self.written() - before
        return wrote, self.now() - began - wrote

    def written(self) -> float:
        return sum(map(sum, (stepper.wrote for stepper in self.steppers))) * CHARACTER

    def score(self) -> None:
        self.stage.begin(1)
        self.stage.feed(1, text_of(100_000))


@pytest.mark.parametrize(("prompts", "scores"), [(0, True), (1, False), (1, True), (4, False), (3, True)])
def test_prompts_of_other_models_and_scores_share_what_one_prompt_may_take(prompts: int, scores: bool) -> None:
    house = House(1 + prompts)
    house.engines[0].admit([1], RowRequest(max_characters=10**6))
    for row_id, engine in enumerate(house.engines[1:], 2):
        engine.admit([row_id], RowRequest("a" * 100_000, 1))
    if scores:
        house.score()
    house.run(20)  # until each knows how long a character takes

    wrote, read = house.run(200)

    assert wrote >= 200 * (TURN_SECONDS - CHARACTER)
    assert 0.6 * READING_SHARE * wrote <= read <= READING_SHARE * wrote + 2 * TURN_SECONDS


def test_where_nobody_writes_each_works_for_a_turn() -> None:
    house = House(2)
    for row_id, engine in enumerate(house.engines, 1):
        engine.admit([row_id], RowRequest("a" * 100_000, 1))
    house.score()
    house.run(5)

    _, read = house.run(20)

    assert math.isclose(read, 60 * TURN_SECONDS, rel_tol=0.1)
