"""A training whose numbers stop being finite goes back and on more slowly, three times at most.

The divergence is real: where learning rate times weight decay is above 2, a step makes weights larger than they were,
and soon a ReLU network's state grows without bound; where it is below, they shrink again. So it does with each of 24
seeds that were tried.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from models.checkpoint import decode_checkpoint
from models.config import ModelConfig, TrainingConfig
from models.sampling import NotFinite
from tests.unit.keeper import Keeper
from worker.batches import Corpus
from worker.events import Evaluated, Event, Finished, Progress, Sampled, Saved, Setback, Started, Ticked
from worker.learner import Learner
from worker.resume_point import ResumePoint
from worker.trainer import Diverged, train

CORPUS = Corpus.of("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(60)))
HOPELESS = {"learning_rate": 10.0, "steps": 3000, "evaluate_every": 1}
"""At an eighth of the rate a step still multiplies the weights by -11.5."""


def events_of(resume: bytes | None = None, *, hooks: dict[str, Any] | None = None, **settings: Any) -> Iterator[Event]:
    training = {
        "steps": 60,
        "batch_size": 8,
        "sequence_length": 30,
        "evaluate_every": 7,
        "learning_rate": 0.6,
        "weight_decay": 10.0,
        "gradient_clip": 1e6,
        "precision": "float32",
        **settings,
    }
    if "minutes" in settings:
        del training["steps"]
    model = ModelConfig(cell="rnn_relu", hidden_size=12, embedding_size=6)
    return train(model, TrainingConfig(**training), CORPUS, resume=resume, **(hooks or {}))


def kept(events: Iterator[Event], keeper: Keeper | None = None, most: int | None = None) -> Keeper:
    keeper = keeper or Keeper()
    for count, event in enumerate(events):
        if count == most:
            break
        keeper.tell(event)
    return keeper


def test_a_training_that_breaks_goes_back_to_its_resume_point_with_half_the_rate_and_ends_well() -> None:
    events = list(events_of())
    setbacks = [event for event in events if isinstance(event, Setback)]
    assert 1 <= len(setbacks) <= 3
    assert setbacks[-1].to_step > 0, "not only to the start"
    assert [setback.setbacks for setback in setbacks] == list(range(1, len(setbacks) + 1))
    assert [setback.learning_rate for setback in setbacks] == [0.3, 0.15, 0.075][: len(setbacks)]
    assert isinstance(events[-1], Finished)
    assert events[-1].step == 60
    keeper = kept(iter(events))
    assert max(row["learning_rate"] for step, row in keeper.metrics.items() if step > setbacks[-1].to_step) <= (
        setbacks[-1].learning_rate
    )
    assert all(math.isfinite(row.get("train_loss", 0)) for row in keeper.metrics.values())


def test_of_a_setback_follow_a_resume_point_without_checkpoint_and_the_steps_from_there() -> None:
    events = [event for event in events_of() if not isinstance(event, Ticked)]
    at = [index for index, event in enumerate(events) if isinstance(event, Setback)]
    saved_steps = {event.step for event in events[: at[-1]] if isinstance(event, Saved)}
    for index in at:
        setback, saved, after = events[index : index + 3]
        assert isinstance(setback, Setback)
        assert isinstance(saved, Saved)
        assert (saved.step, saved.checkpoint, saved.best) == (setback.to_step, None, False)
        assert ResumePoint.decode(saved.resume_point).values["course"]["setbacks"] == setback.setbacks
        assert isinstance(after, Progress | Setback)
        assert after.step > setback.to_step
        assert setback.to_step in {0} | saved_steps
        assert setback.step >= setback.to_step


def test_before_the_first_resume_point_it_begins_anew_as_if_it_had_been_told_the_lower_rate() -> None:
    settings = {"evaluate_every": 100, "average_decay": 0.9}
    broken = kept(events_of(**settings))
    assert broken.setbacks
    assert {setback.to_step for setback in broken.setbacks} == {0}
    rate = broken.setbacks[-1].learning_rate
    whole = kept(events_of(learning_rate=rate, **settings))
    assert not whole.setbacks
    assert broken.metrics == whole.metrics
    assert broken.samples == whole.samples
    ours, theirs = broken.tensors(), whole.tensors()
    assert "average.output.weight" in ours
    assert all(ours[name].equal(theirs[name]) for name in ours.keys() | theirs.keys())


@pytest.mark.parametrize("settings", [{}, {"evaluate_every": 100}, {"average_decay": 0.9}], ids=str)
def test_killed_anywhere_around_a_setback_it_ends_as_if_nothing_had_been(settings: dict[str, Any]) -> None:
    events = list(events_of(**settings))
    whole = kept(iter(events))
    assert whole.setbacks
    for at in (index for index, event in enumerate(events) if isinstance(event, Setback)):
        for most in range(at - 1, at + 5):
            broken = kept(iter(events), most=most)
            kept(events_of(broken.resume_point, **settings), broken)
            assert broken.differences(whole) == [], f"killed {most - at} events after the setback"
            assert set(broken.setbacks) == set(whole.setbacks)


def test_the_fourth_time_it_fails_with_advice_and_what_was_saved_is_sound() -> None:
    keeper = Keeper()
    with pytest.raises(Diverged, match=r"went back 3 times.* learning_rate below 1\.25, or a lower gradient_clip"):
        kept(events_of(**HOPELESS), keeper)
    assert [setback.learning_rate for setback in keeper.setbacks] == [5, 2.5, 1.25]
    assert keeper.checkpoints
    for checkpoint in keeper.checkpoints.values():
        decode_checkpoint(checkpoint)  # raises when a weight is not finite


def test_setbacks_are_counted_over_all_attempts() -> None:
    keeper = Keeper()
    for event in events_of(**HOPELESS):
        keeper.tell(event)
        if isinstance(event, Saved) and len(keeper.setbacks) == 2:
            break
    told: list[Event] = []
    with pytest.raises(Diverged):
        told.extend(events_of(keeper.resume_point, **HOPELESS))
    assert isinstance(told[1], Started)
    assert told[1].setbacks == 2
    assert [event.setbacks for event in told if isinstance(event, Setback)] == [3]


def test_weights_that_are_no_numbers_when_a_pause_is_asked_for_are_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    update = Learner.update

    def breaking(self: Learner, *arguments: Any) -> Any:
        seen = update(self, *arguments)
        self.network.output.bias.data.fill_(math.inf)
        return seen

    monkeypatch.setattr(Learner, "update", breaking)
    asked = iter([False, *[True] * 9])
    keeper = kept(events_of(hooks={"pause_requested": lambda: next(asked)}))
    assert [(setback.what, setback.to_step) for setback in keeper.setbacks] == [("largest weight", 0)]
    assert keeper.finished == Finished(0, "paused", None, None)
    assert all(tensor.isfinite().all() for tensor in keeper.tensors().values())


def test_an_evaluation_whose_sample_fails_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing(*_: Any) -> str:
        raise NotFinite("the network's answer is not finite")

    monkeypatch.setattr("worker.trainer.sample_text", overflowing)
    told: list[Event] = []
    with pytest.raises(Diverged, match="answer after 7 steps"):
        told.extend(events_of(learning_rate=0.01, weight_decay=0.0))
    assert not [event for event in told if isinstance(event, Evaluated | Sampled)]
    assert {setback.what for setback in told if isinstance(setback, Setback)} == {"network's answer"}


@pytest.mark.parametrize("breaks_at", [0.5, 30, 57])
def test_the_time_that_a_setback_costs_is_the_budgets(breaks_at: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    broken = False
    update = Learner.update

    def tick() -> bool:
        nonlocal now
        now += 0.1
        return False

    def breaking(self: Learner, step: int, rate: float) -> Any:
        nonlocal broken
        if now >= breaks_at and not broken:
            broken = True
            raise Diverged("gradient", step)
        return update(self, step, rate)

    monkeypatch.setattr(Learner, "update", breaking)
    hooks = {"pause_requested": tick, "clock": lambda: now}
    events = list(events_of(minutes=1, learning_rate=0.01, weight_decay=0.0, evaluate_every=None, hooks=hooks))
    assert len([event for event in events if isinstance(event, Setback)]) == 1
    assert now == pytest.approx(60, rel=0.05)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "budget"
    seconds = [event.seconds for event in events if isinstance(event, Progress)]
    assert all(earlier < later for earlier, later in pairwise(seconds)), "the clock never goes back"
