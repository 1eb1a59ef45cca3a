"""The plan of a training: budgets, the course of the learning rate, when to evaluate."""

import json

import pytest

from models.config import TrainingConfig
from worker.recipe import Costs, Plan, Recipe


def recipe_of(evaluation_steps: float = 1.0, **training: object) -> Recipe:
    return Recipe(TrainingConfig(**training), epoch_steps=100, evaluation_steps=evaluation_steps)  # type: ignore[arg-type]


def evaluations_of(recipe: Recipe) -> list[int]:
    """Steps evaluated by a training that follows the plans."""
    plan, evaluated = recipe.first_plan(), []
    for step in range(1, plan.steps + 1):
        last = evaluated[-1] if evaluated else 0
        if step == plan.report_at:
            plan = recipe.next_plan(plan, step, evaluated=last, costs=Costs(0, 0, 0))
        if step == plan.evaluate_at:
            evaluated.append(step)
            plan = recipe.next_plan(plan, step, evaluated=step, costs=Costs(0, 0, 0))
    return evaluated


def test_a_budget_in_steps_or_epochs_is_known_from_the_beginning() -> None:
    assert recipe_of(steps=7).first_plan().steps == 7
    assert recipe_of(epochs=2.5).first_plan().steps == 250
    assert recipe_of(epochs=0.001).first_plan().steps == 1


def test_the_learning_rate_warms_up_linearly_and_falls_in_a_cosine_to_two_percent() -> None:
    plan = recipe_of(steps=1000).first_plan()
    assert plan.learning_rate(0, 1.0) == pytest.approx(1 / 50, rel=1e-3)
    assert plan.learning_rate(24, 1.0) == pytest.approx(25 / 50, rel=2e-3)
    assert plan.learning_rate(500, 1.0) == pytest.approx(0.51)
    assert plan.learning_rate(999, 1.0) == pytest.approx(0.02, rel=1e-3)
    rates = [plan.learning_rate(step, 1.0) for step in range(1000)]
    assert rates[:49] == sorted(rates[:49])
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_a_short_training_warms_up_for_a_tenth_of_it() -> None:
    plan = recipe_of(steps=20).first_plan()
    assert plan.learning_rate(0, 1.0) < 0.51 < plan.learning_rate(1, 1.0)


def test_a_long_training_is_evaluated_about_fifteen_times_and_at_its_end() -> None:
    evaluated = evaluations_of(recipe_of(steps=3000))
    assert evaluated == [*range(200, 3001, 200)]


def test_a_very_long_training_is_evaluated_every_two_thousand_steps() -> None:
    evaluated = evaluations_of(recipe_of(steps=50_000))
    assert evaluated[:2] == [2000, 4000]
    assert evaluated[-1] == 50_000


def test_costly_evaluations_are_fewer_but_at_least_three() -> None:
    assert evaluations_of(recipe_of(evaluation_steps=50, steps=3000)) == [500, 1000, 1500, 2000, 2500, 3000]
    assert evaluations_of(recipe_of(evaluation_steps=1e6, steps=3000)) == [1000, 2000, 3000]


def test_evaluate_every_is_obeyed_to_the_step_and_the_last_step_is_always_evaluated() -> None:
    assert evaluations_of(recipe_of(steps=10, evaluate_every=4)) == [4, 8, 10]
    assert evaluations_of(recipe_of(steps=1)) == [1]


def test_a_plan_survives_json_to_the_bit() -> None:
    recipe = recipe_of(minutes=1)
    plan = recipe.next_plan(recipe.first_plan(), 3, evaluated=0, costs=Costs(1.1, 0.3, 2.7))
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_planning_anew_bends_the_fraction_without_a_jump() -> None:
    recipe = recipe_of(minutes=1)
    plan = recipe.next_plan(recipe.first_plan(), 10, evaluated=0, costs=Costs(1.0, 0.1, 1.0))
    slower = recipe.next_plan(plan, 200, evaluated=0, costs=Costs(30.0, 0.2, 1.0))
    assert slower.fraction(200) == plan.fraction(200)
    assert slower.steps < plan.steps
    assert slower.fraction(slower.steps) == 1
    assert slower.fraction(slower.steps - 1) < 1


def test_a_budget_in_minutes_that_is_used_up_ends_at_once() -> None:
    recipe = recipe_of(minutes=1)
    plan = recipe.next_plan(recipe.first_plan(), 10, evaluated=10, costs=Costs(60.0, 0.1, 1.0))
    assert plan.steps == 10
