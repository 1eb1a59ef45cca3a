"""What training tells, what it refuses, and that it learns."""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from models.checkpoint import decode_checkpoint
from models.config import CELLS, Cell, ModelConfig, TrainingConfig
from models.sampling import NotFinite
from models.vocabulary import Vocabulary
from worker.batches import Corpus, CorpusTooShort
from worker.evaluation import Validation, sample_text
from worker.events import Evaluated, Event, Finished, Progress, Sampled, Saved, Started, Ticked
from worker.learner import Learner
from worker.resume_point import ResumePoint
from worker.trainer import Diverged, train

SENTENCE = "the quick brown fox jumps over the lazy dog.\n"
T = TypeVar("T")
SMALL = {"hidden_size": 16, "embedding_size": 8}


def events_of(
    text: str, cell: Cell = "gru", *, clock: Any = None, pause: Any = None, **training: Any
) -> Iterator[Event]:
    settings = {"batch_size": 4, "sequence_length": 16, "learning_rate": 1e-2, "precision": "float32", **training}
    hooks: dict[str, Callable[[], Any]] = {}
    if clock is not None:
        hooks["clock"] = clock
    if pause is not None:
        hooks["pause_requested"] = pause
    return train(ModelConfig(cell=cell, **SMALL), TrainingConfig(**settings), Corpus.of(text), **hooks)  # type: ignore[arg-type]


def of_type(events: list[Event], kind: type[T]) -> list[T]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_on_abab_drives_bits_per_character_towards_zero(cell: Cell, precision: str) -> None:
    events = list(events_of("ab" * 1000, cell, steps=150, precision=precision))
    evaluated = of_type(events, Evaluated)
    assert of_type(events, Progress)[0].train_loss / math.log(2) > 0.5
    assert evaluated[-1].val_loss / math.log(2) < 0.01


def test_events_come_in_order_and_the_last_step_is_evaluated_and_saved() -> None:
    events = list(events_of(SENTENCE * 50, steps=20, evaluate_every=8))
    untold = [event for event in events if not isinstance(event, Ticked | Progress)]
    names = [type(event).__name__ for event in untold]
    assert names == ["Started", *["Evaluated", "Sampled", "Saved"] * 3, "Finished"]
    assert [saved.step for saved in of_type(events, Saved)] == [8, 16, 20]
    assert events[-1] == Finished(20, "budget", 20, of_type(events, Evaluated)[-1].val_loss)
    progress = of_type(events, Progress)[-1]
    assert (progress.step, progress.steps, progress.fraction) == (20, 20, 1.0)


def test_every_step_and_every_window_of_an_evaluation_is_a_sign_of_life() -> None:
    ticks = of_type(list(events_of(SENTENCE * 50, steps=5)), Ticked)
    assert [tick.step for tick in ticks if tick.phase == "training"] == [1, 2, 3, 4, 5]
    assert {tick.phase for tick in ticks} == {"loading", "training", "evaluating"}


def test_started_tells_what_was_resolved() -> None:
    started = of_type(list(events_of(SENTENCE * 50, steps=1)), Started)[0]
    characters = len(SENTENCE) * 50
    assert (started.step, started.steps, started.precision, started.device) == (0, 1, "float32", "cpu")
    assert started.validation_characters == characters // 10
    assert started.train_characters == characters - characters // 10
    model = ModelConfig(cell="gru", **SMALL)  # type: ignore[arg-type]
    assert started.parameters == model.parameter_count(started.vocabulary_size)


def test_a_checkpoint_is_complete_and_predicts_as_well_as_it_says() -> None:
    text = SENTENCE * 50
    saved = of_type(list(events_of(text, steps=60)), Saved)[-1]
    assert saved.checkpoint is not None
    network, info = decode_checkpoint(saved.checkpoint)
    assert (info.step, info.val_loss, info.vocabulary) == (60, saved.val_loss, Vocabulary.of([text]))
    assert TrainingConfig.from_dict(info.training).steps == 60
    corpus = Corpus.of(text)
    windows = list(Validation(corpus.ids, len(corpus.ids) - len(corpus.ids) // 10).losses(network, "cpu"))
    assert sum(w[0] for w in windows) / sum(w[1] for w in windows) == pytest.approx(saved.val_loss, rel=1e-5)


def test_what_is_evaluated_sampled_and_saved_are_the_averaged_weights() -> None:
    text = SENTENCE * 50
    events = list(events_of(text, steps=30, average_decay=0.95))
    saved, corpus = of_type(events, Saved)[-1], Corpus.of(text)
    network, _ = decode_checkpoint(saved.checkpoint or b"")
    tensors = ResumePoint.decode(saved.resume_point).tensors
    for name, weight in network.named_parameters():
        assert torch.equal(weight, tensors[f"average.{name}"])
        assert not torch.equal(weight, tensors[f"weights.{name}"])
    windows = list(Validation(corpus.ids, len(corpus.ids) - len(corpus.ids) // 10).losses(network, "cpu"))
    # MKL rounds by where a matrix lies in memory, and the decoded weights lie elsewhere.
    assert sum(w[0] for w in windows) / sum(w[1] for w in windows) == pytest.approx(saved.val_loss, rel=1e-5)
    assert sample_text(network, corpus.vocabulary, "cpu") == of_type(events, Sampled)[-1].text
    plain = list(events_of(text, steps=30))
    assert of_type(plain, Saved)[-1].val_loss != pytest.approx(saved.val_loss, rel=1e-3)
    assert [p.train_loss for p in of_type(plain, Progress)] == [p.train_loss for p in of_type(events, Progress)]


def test_without_validation_every_checkpoint_is_the_best() -> None:
    events = list(events_of(SENTENCE * 5, steps=9, evaluate_every=4, validation_fraction=0))
    assert not of_type(events, Evaluated)
    assert [(saved.best, saved.val_loss) for saved in of_type(events, Saved)] == [(True, None)] * 3
    assert events[-1] == Finished(9, "budget", 9, None)


def test_patience_ends_a_training_that_gets_no_better() -> None:
    # The end of the text is of another kind: learning the beginning makes it worse.
    events = list(
        events_of("ab" * 500 + "ba ab bb aa" * 10, steps=500, evaluate_every=5, patience=3, learning_rate=0.05)
    )
    evaluated = of_type(events, Evaluated)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == "patience"
    assert finished.step < 500
    assert [event.best for event in evaluated[-3:]] == [False] * 3
    assert finished.best_val_loss == min(event.val_loss for event in evaluated)
    assert finished.best_step == min(evaluated, key=lambda event: event.val_loss).step


def test_a_pause_stores_a_resume_point_and_ends() -> None:
    asked = iter([False] * 7 + [True] * 9)
    events = list(events_of(SENTENCE * 50, steps=100, evaluate_every=50, pause=lambda: next(asked)))
    saved, finished = events[-2:]
    assert isinstance(saved, Saved)
    assert (saved.step, saved.checkpoint, saved.best) == (7, None, False)
    assert finished == Finished(7, "paused", None, None)


def test_closing_the_generator_cancels() -> None:
    events = events_of(SENTENCE * 50, steps=100)
    while not isinstance(next(events), Progress):
        pass
    events.close()  # type: ignore[attr-defined]
    assert list(events) == []


def test_a_text_that_is_too_short_is_refused_naming_the_minimum() -> None:
    with pytest.raises(CorpusTooShort, match=r"has 17 characters.*at least 18") as raised:
        list(events_of("a" * 16 + "b", steps=1))
    assert raised.value.minimum == 18
    assert isinstance(list(events_of("a" * 17 + "b", steps=1))[-1], Finished)


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_of_no_or_one_character_is_refused(text: str) -> None:
    corpus = Corpus(np.zeros(len(text), np.uint16), Vocabulary("a"), "")
    with pytest.raises(CorpusTooShort):
        list(train(ModelConfig(**SMALL), TrainingConfig(steps=1), corpus))  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", ["rnn_relu", "gru"])
def test_a_training_that_diverges_stops_before_the_step_and_stores_no_such_weights(cell: Cell) -> None:
    checkpoints: list[bytes] = []
    with pytest.raises(Diverged, match="not a finite number") as raised:  # noqa: PT012
        for event in _poisoned(events_of(SENTENCE * 50, cell, steps=50, evaluate_every=1)):
            checkpoints += [event.checkpoint] if isinstance(event, Saved) and event.checkpoint is not None else []
    assert raised.value.step == 2
    assert checkpoints
    for checkpoint in checkpoints:
        decode_checkpoint(checkpoint)  # raises when a weight is not finite


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("settings", [{"evaluate_every": 1}, {"validation_fraction": 0, "evaluate_every": 1}, {}])
def test_weights_that_grow_without_bound_are_told_as_divergence_wherever_they_are_met(
    cell: Cell, settings: dict[str, Any]
) -> None:
    told: list[Event] = []
    with pytest.raises(Diverged):
        told.extend(events_of(SENTENCE * 50, cell, steps=3000, learning_rate=10, weight_decay=10, **settings))
    for saved in of_type(told, Saved):
        if saved.checkpoint is not None:
            decode_checkpoint(saved.checkpoint)


def test_weights_that_are_no_numbers_are_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Learner.update

    def breaking(self: Learner, *arguments: Any) -> Any:
        update = step(self, *arguments)
        self.network.output.bias.data.fill_(math.inf)
        return update

    monkeypatch.setattr(Learner, "update", breaking)
    told: list[Event] = []
    with pytest.raises(Diverged, match="weight after 1 step"):
        told.extend(events_of(SENTENCE * 50, steps=1, validation_fraction=0))
    assert {(saved.step, saved.checkpoint) for saved in of_type(told, Saved)} == {(0, None)}


def test_an_answer_that_is_no_number_although_the_weights_are_is_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing(*_: Any) -> str:
        raise NotFinite("the network's answer is not finite")

    monkeypatch.setattr("worker.trainer.sample_text", overflowing)
    with pytest.raises(Diverged, match="answer after 1 step"):
        list(events_of(SENTENCE * 50, steps=1))


def _poisoned(events: Iterator[Event]) -> Iterator[Event]:
    """The events; after the second save, losses are no numbers any more."""
    saves = 0
    for event in events:
        yield event
        saves += isinstance(event, Saved)
        if saves == 2:
            break
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.learner.F.cross_entropy", lambda logits, _: logits.sum() * float("nan"))
        yield from events


def test_two_trainings_of_one_seed_are_the_same_and_another_seed_is_another() -> None:
    runs = [
        [p.train_loss for p in of_type(list(events_of(SENTENCE * 20, steps=6, seed=s)), Progress)] for s in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_evaluating_more_often_changes_nothing_that_is_learned() -> None:
    runs = [list(events_of(SENTENCE * 20, steps=12, evaluate_every=every)) for every in (1, 12)]
    assert of_type(runs[0], Evaluated)[-1].val_loss == of_type(runs[1], Evaluated)[-1].val_loss


def test_samples_are_of_known_characters_and_the_same_for_the_same_network() -> None:
    samples = [of_type(list(events_of(SENTENCE * 20, steps=3)), Sampled) for _ in range(2)]
    assert samples[0] == samples[1]
    assert len(samples[0][-1].text) == 120
    assert set(samples[0][-1].text) <= set(SENTENCE)


class FakeClock:
    """Every question whether to pause takes `step_seconds`: one is asked at each step, and within evaluations."""

    def __init__(self, step_seconds: Callable[[float], float]) -> None:
        self.now = 1000.0
        self._step_seconds = step_seconds

    def __call__(self) -> float:
        return self.now

    def pause_requested(self) -> bool:
        self.now += self._step_seconds(self.now - 1000)
        return False


@pytest.mark.parametrize(
    "step_seconds",
    [
        lambda _: 0.05,
        lambda _: 0.9,
        lambda seconds: 5.0 if seconds == 0 else 0.06,  # a slow first step
        lambda seconds: 0.05 if seconds < 30 else 0.2,  # the machine gets busy
        lambda seconds: 0.2 if seconds < 30 else 0.05,  # and free again
    ],
    ids=["quick", "slow", "slow first step", "slower", "quicker"],
)
def test_a_budget_in_minutes_ends_on_time(step_seconds: Callable[[float], float]) -> None:
    clock = FakeClock(step_seconds)
    events = []
    for event in events_of(SENTENCE * 100, minutes=1, clock=clock, pause=clock.pause_requested):
        clock.now += 0.5 if isinstance(event, Saved) else 0
        events.append(event)
    assert clock.now - 1000 == pytest.approx(60, rel=0.05)
    finished, progress = events[-1], of_type(events, Progress)[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == "budget"
    assert progress.learning_rate < 0.03 * 1e-2  # the rate has come down to its end
    assert progress.steps == progress.step == finished.step
    fractions = [p.fraction for p in of_type(events, Progress)]
    assert fractions == sorted(fractions)
    assert len(fractions) < 150


def test_progress_tells_speed_and_time_left() -> None:
    clock = FakeClock(lambda _: 0.1)
    progress = of_type(
        list(events_of(SENTENCE * 50, steps=100, evaluate_every=100, clock=clock, pause=clock.pause_requested)),
        Progress,
    )
    middle = next(p for p in progress if p.step >= 50)
    assert middle.characters_per_second == pytest.approx(4 * 16 / 0.1, rel=0.05)
    assert middle.eta_seconds == pytest.approx((100 - middle.step) * 0.1, rel=0.5)
    assert middle.seconds == pytest.approx(middle.step * 0.1, rel=0.05)
    assert middle.fraction == middle.step / 100
    assert middle.gradient_norm > 0
    peaks = [p.memory_bytes for p in progress]
    assert peaks == sorted(peaks)
    assert peaks[0] > 50_000_000, "torch alone takes more"
