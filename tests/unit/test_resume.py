"""A training that is killed and resumed is the uninterrupted one, to the bit."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from models.config import CELLS, Cell, ModelConfig, TrainingConfig
from tests.curves import curve_of, final_tensors
from worker.batches import Corpus
from worker.events import Event, Finished, Progress, Saved
from worker.resume_point import InvalidResumePoint, ResumePoint
from worker.trainer import train

CORPUS = Corpus.of("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(60)))
STEPS = 30  # the lanes wrap after 38 windows of 19 characters; the small sequence below wraps within the run


def events_of(
    cell: Cell, resume: bytes | None = None, pause: Callable[[], bool] = lambda: False, **settings: Any
) -> Iterator[Event]:
    model = ModelConfig(cell=cell, hidden_size=12, num_layers=2, embedding_size=6, dropout=0.3)
    training: dict[str, Any] = {"steps": STEPS, "batch_size": 8, "sequence_length": 19, "evaluate_every": 7, **settings}
    return train(model, TrainingConfig(**training), CORPUS, resume=resume, pause_requested=pause)


def killed_after(events: Iterator[Event], count: int) -> list[Event]:
    """The first events of a training that dies then."""
    return [event for event, _ in zip(events, range(count), strict=False)]


def until_the_end(cell: Cell, draw: random.Random, **settings: Any) -> list[Event]:
    """A training killed again and again at random moments; what its listener keeps, as the store does."""
    kept: list[Event] = []
    resume: bytes | None = None
    while not (kept and isinstance(kept[-1], Finished)):
        told = killed_after(events_of(cell, resume, **settings), draw.randrange(5, 60))
        kept += told
        saves = [index for index, event in enumerate(kept) if isinstance(event, Saved)]
        if not isinstance(kept[-1], Finished):
            kept = kept[: saves[-1] + 1] if saves else []
        resume = kept[-1].resume_point if kept and isinstance(kept[-1], Saved) else resume
    return kept


@pytest.mark.parametrize(("precision", "average_decay"), [("float32", 0.9), ("bfloat16", 0.0)])
@pytest.mark.parametrize("cell", CELLS)
def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(
    cell: Cell, precision: str, average_decay: float
) -> None:
    settings = {"precision": precision, "average_decay": average_decay}
    whole = list(events_of(cell, **settings))
    broken = until_the_end(cell, random.Random(f"{cell} {precision}"), **settings)
    assert curve_of(broken) == curve_of(whole)
    expected = final_tensors(whole)
    assert {"state", "random.cpu", "exp_avg.output.weight", "weights.output.weight"} <= expected.keys()
    assert ("average.output.weight" in expected) == (average_decay > 0)
    assert final_tensors(broken).keys() == expected.keys()
    for name, tensor in final_tensors(broken).items():
        assert torch.equal(tensor, expected[name]), name


def test_the_carried_state_and_its_reset_survive_a_resume() -> None:
    settings = {"sequence_length": 300, "batch_size": 2, "evaluate_every": 1, "steps": 10}
    whole = list(events_of("lstm", **settings))
    assert [p for p in whole if isinstance(p, Progress)][-1].epoch > 1
    broken = until_the_end("lstm", random.Random(3), **settings)
    assert curve_of(broken) == curve_of(whole)


def test_what_a_sampled_softmax_has_learnt_and_will_draw_survives_a_resume() -> None:
    settings = {"softmax_samples": 3, "average_decay": 0.9}
    whole = list(events_of("gru", **settings))
    broken = until_the_end("gru", random.Random(4), **settings)
    assert curve_of(broken) == curve_of(whole) != curve_of(list(events_of("gru", average_decay=0.9)))
    for name, tensor in final_tensors(broken).items():
        assert torch.equal(tensor, final_tensors(whole)[name]), name


@pytest.mark.parametrize("calls", [1, 5, 9, 10, 12])
def test_paused_at_any_moment_also_within_an_evaluation_it_goes_on_exactly(calls: int) -> None:
    whole = curve_of(list(events_of("gru")))
    asked = iter([False] * calls + [True] * 99)
    first = list(events_of("gru", pause=lambda: next(asked)))
    assert isinstance(first[-1], Finished)
    assert first[-1].reason == "paused"
    assert isinstance(first[-2], Saved)
    second = list(events_of("gru", first[-2].resume_point))
    assert curve_of(first)[:-1] + curve_of(second) == whole


def test_patience_and_the_best_are_remembered() -> None:
    settings = {"patience": 2, "learning_rate": 1.0, "evaluate_every": 1, "steps": 200}
    whole = list(events_of("rnn_tanh", **settings))
    assert isinstance(whole[-1], Finished)
    assert whole[-1].reason == "patience"
    saves = [event for event in whole if isinstance(event, Saved)]
    for saved in saves[-3:]:
        rest = list(events_of("rnn_tanh", saved.resume_point, **settings))
        assert rest[-1] == whole[-1]


def test_a_resume_after_the_last_step_only_finishes() -> None:
    whole = list(events_of("gru"))
    last = [event for event in whole if isinstance(event, Saved)][-1]
    rest = list(events_of("gru", last.resume_point))
    assert curve_of(rest) == [whole[-1]]


def test_a_training_by_the_clock_goes_on_under_its_recorded_plan() -> None:
    now = 0.0

    def tick() -> bool:
        nonlocal now
        now += 0.5
        return False

    def run(resume: bytes | None) -> list[Event]:
        model = ModelConfig(hidden_size=8, embedding_size=4)
        training = TrainingConfig(minutes=0.5, batch_size=4, sequence_length=16)
        return list(train(model, training, CORPUS, resume=resume, pause_requested=tick, clock=lambda: now))

    first = run(None)
    saves = [event for event in first if isinstance(event, Saved)]
    now += 10_000  # it lay about; that is nobody's budget
    rest = run(saves[0].resume_point)
    plans = [ResumePoint.decode(s.resume_point).values["plan"]["segments"] for s in (saves[0], rest[-2])]  # type: ignore[union-attr]
    assert plans[1][: len(plans[0])] == plans[0]
    assert isinstance(rest[-1], Finished)
    assert abs(rest[-1].step - first[-1].step) <= 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "settings"), [("training", {"learning_rate": 0.5}), ("training", {"seed": 9}), ("model", {"cell": "lstm"})]
)
def test_a_resume_point_of_another_training_is_refused(name: str, settings: dict[str, Any]) -> None:
    point = next(event for event in events_of("gru", evaluate_every=1) if isinstance(event, Saved)).resume_point
    with pytest.raises(InvalidResumePoint, match=f"another {name}"):
        list(events_of(**{"cell": "gru", "evaluate_every": 1, "resume": point, **settings}))


def test_a_resume_point_from_before_a_setting_came_into_being_is_still_good() -> None:
    whole = list(events_of("gru", evaluate_every=10))
    point = ResumePoint.decode(next(event for event in whole if isinstance(event, Saved)).resume_point)
    del point.values["identity"]["training"]["average_decay"]
    assert list(events_of("gru", point.encode(), evaluate_every=10))[-1] == whole[-1]


def test_bytes_that_are_no_resume_point_are_refused() -> None:
    point = next(event for event in events_of("gru", evaluate_every=1) if isinstance(event, Saved)).resume_point
    for data in (b"", b"garbage", point[:-5]):
        with pytest.raises(InvalidResumePoint):
            list(events_of("gru", data))
