"""A training of two threads, killed with SIGKILL again and again, is the undisturbed one, to the bit."""

import random

import pytest
import torch

from models.config import CELLS, Cell, ModelConfig, TrainingConfig
from tests.curves import curve_of, final_tensors
from tests.mortal_training import MortalTraining, mortal_training
from worker.events import Event, Finished, Saved

pytestmark = pytest.mark.system

TEXT = "".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(60))
TRAINING = TrainingConfig(steps=200, batch_size=16, sequence_length=19, evaluate_every=7, average_decay=0.9)
KILLS = 20
MOST_EVENTS = 60
"""Between two deaths; a stretch from one resume point to the next has about ten."""


def told(training: MortalTraining, count: int) -> list[Event]:
    """What is told by a training that is killed when so many events have come: it is somewhere behind them by then."""
    events: list[Event] = []
    for event in training.events():
        events.append(event)
        if len(events) == count:
            training.kill()
    return events


def killed_at(draws: list[int], model: ModelConfig) -> list[Event]:
    """What a store would keep: of an attempt that dies, all until its last resume point. At last one lives."""
    kept: list[Event] = []
    resume: bytes | None = None
    for count in [*draws, 0]:
        with mortal_training(model, TRAINING, TEXT, resume) as training:
            kept += told(training, count)
        saves = [index for index, event in enumerate(kept) if isinstance(event, Saved)]
        assert isinstance(kept[-1], Finished) == (not count), "killed in the midst, and only then"
        if count:
            kept = kept[: saves[-1] + 1] if saves else []
        if saves:
            resume = kept[saves[-1]].resume_point  # type: ignore[union-attr]
    return kept


@pytest.mark.parametrize("cell", CELLS)
def test_killed_at_twenty_random_points_it_ends_as_if_nothing_had_been(cell: Cell) -> None:
    model = ModelConfig(cell=cell, hidden_size=16, num_layers=2, embedding_size=6, dropout=0.2)
    draw = random.Random(cell)
    with mortal_training(model, TRAINING, TEXT, resume=None) as training:
        whole = told(training, 0)
    broken = killed_at([draw.randrange(1, MOST_EVENTS) for _ in range(KILLS)], model)
    assert curve_of(broken) == curve_of(whole)
    expected, tensors = final_tensors(whole), final_tensors(broken)
    assert {"state", "random.cpu", "exp_avg.output.weight", "weights.output.weight", "average.output.weight"} <= {
        *tensors
    }
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name
