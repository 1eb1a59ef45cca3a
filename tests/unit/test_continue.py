"""A training that goes on from a checkpoint: it starts where that stood, and is resumed as exactly as any other."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from models.checkpoint import decode_checkpoint, read_info
from models.config import CELLS, Cell, ModelConfig, TrainingConfig
from models.vocabulary import UnknownCharacter, Vocabulary
from tests.unit.test_resume import curve_of, killed_after
from worker.batches import Corpus, Lanes, split
from worker.events import Evaluated, Event, Finished, Progress, Sampled, Saved, Started
from worker.resume_point import InvalidResumePoint, ResumePoint
from worker.trainer import train

BOTTLES = Corpus.of("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(60)))
KNOWN = BOTTLES.vocabulary.characters
CAPS = Corpus.of("".join(f"{n} BÖTTLES of BEER on the wall.\n" for n in range(90)), known=KNOWN)
STEPS = 30


def events_of(corpus: Corpus, cell: Cell = "gru", **how: Any) -> Iterator[Event]:
    hooks = {name: how.pop(name) for name in ("resume", "from_checkpoint", "pause_requested") if name in how}
    model = ModelConfig(cell=cell, hidden_size=12, num_layers=2, embedding_size=6, dropout=how.pop("dropout", 0.0))
    settings = {"steps": STEPS, "batch_size": 8, "sequence_length": 19, "evaluate_every": 7, "precision": "float32"}
    return train(model, TrainingConfig(**(settings | how)), corpus, **hooks)


def checkpoint_of(events: list[Event]) -> bytes:
    """The last one."""
    found = [event.checkpoint for event in events if isinstance(event, Saved) and event.checkpoint]
    return found[-1]


@pytest.fixture(scope="module")
def origin() -> bytes:
    return checkpoint_of(list(events_of(BOTTLES)))


def test_on_the_same_corpus_it_begins_at_the_very_loss_of_the_checkpoint(origin: bytes) -> None:
    told = list(events_of(BOTTLES, from_checkpoint=origin, seed=5, evaluate_every=10, dropout=0.5))
    evaluated = next(event for event in told if isinstance(event, Evaluated))
    assert evaluated == Evaluated(0, read_info(origin).val_loss, best=True)  # type: ignore[arg-type]
    kinds = [type(event) for event in told if isinstance(event, Started | Evaluated | Sampled | Saved | Progress)]
    assert kinds[:5] == [Started, Evaluated, Sampled, Saved, Progress]
    first = next(event.checkpoint for event in told if isinstance(event, Saved))
    assert first is not None
    weights = [dict(decode_checkpoint(file)[0].named_parameters()) for file in (first, origin)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("average_decay", [0, 0.9])
def test_the_first_step_sees_the_checkpoints_own_loss_on_what_it_reads(origin: bytes, average_decay: float) -> None:
    network, _ = decode_checkpoint(origin)
    training = TrainingConfig(steps=1, batch_size=8, sequence_length=19)
    batch = Lanes(split(BOTTLES, training)[0], 8, 19).read(0)
    with torch.no_grad():
        logits_BTV, _ = network(torch.from_numpy(batch.inputs_BT), network.initial_state(8))
    own = F.cross_entropy(logits_BTV.flatten(0, 1), torch.from_numpy(batch.targets_BT).flatten()).item()
    events = events_of(BOTTLES, from_checkpoint=origin, steps=1, average_decay=average_decay)
    progress = next(event for event in events if isinstance(event, Progress))
    assert progress.train_loss == pytest.approx(own, abs=1e-5)


def test_new_characters_extend_the_vocabulary_and_are_learnt(origin: bytes) -> None:
    told = list(events_of(CAPS, from_checkpoint=origin, steps=200, evaluate_every=100, learning_rate=0.02))
    started = next(event for event in told if isinstance(event, Started))
    assert started.vocabulary_size == len(set(KNOWN) | set("BÖTLESR")) == len(KNOWN) + 7
    assert started.parameters == ModelConfig(
        cell="gru", hidden_size=12, num_layers=2, embedding_size=6
    ).parameter_count(started.vocabulary_size)
    info = read_info(checkpoint_of(told))
    assert info.vocabulary == Vocabulary(KNOWN).extended("BÖTLESR")
    losses = [event.val_loss for event in told if isinstance(event, Evaluated)]
    assert losses[0] > 3, "a quarter of the text are characters that it takes for impossible"
    assert losses[-1] < 1.5


def test_a_training_that_only_makes_it_worse_leaves_the_start_as_the_best(origin: bytes) -> None:
    finished = list(events_of(BOTTLES, from_checkpoint=origin, learning_rate=5.0))[-1]
    assert finished == Finished(STEPS, "budget", 0, read_info(origin).val_loss)


@pytest.mark.parametrize("cell", CELLS)
def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(cell: Cell) -> None:
    checkpoint = checkpoint_of(list(events_of(BOTTLES, cell)))
    draw, kept, resume = random.Random(cell), [], None
    how = {"from_checkpoint": checkpoint, "dropout": 0.3, "average_decay": 0.9}
    while not (kept and isinstance(kept[-1], Finished)):
        kept += killed_after(events_of(CAPS, cell, resume=resume, **how), draw.randrange(2, 60))
        if not isinstance(kept[-1], Finished):
            saves = [index for index, event in enumerate(kept) if isinstance(event, Saved)]
            kept = kept[: saves[-1] + 1] if saves else []
            resume = kept[-1].resume_point if kept else None
    whole = list(events_of(CAPS, cell, **how))
    assert curve_of(kept) == curve_of(whole)
    assert checkpoint_of(kept) == checkpoint_of(whole)


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5])
def test_paused_before_or_within_the_first_evaluation_it_goes_on_exactly(origin: bytes, calls: int) -> None:
    whole = curve_of(list(events_of(BOTTLES, from_checkpoint=origin)))
    asked = iter([False] * calls + [True] * 99)
    first = list(events_of(BOTTLES, from_checkpoint=origin, pause_requested=lambda: next(asked)))
    assert isinstance(first[-2], Saved)
    second = list(events_of(BOTTLES, from_checkpoint=origin, resume=first[-2].resume_point))
    assert curve_of(first)[:-1] + curve_of(second) == whole


def test_a_resume_point_of_a_training_that_began_elsewhere_is_refused(origin: bytes) -> None:
    other = checkpoint_of(list(events_of(BOTTLES, seed=3)))
    starts: list[dict[str, Any]] = [{}, {"from_checkpoint": origin}, {"from_checkpoint": other}]
    points = [next(e.resume_point for e in events_of(BOTTLES, **start) if isinstance(e, Saved)) for start in starts]
    for number, start in enumerate(starts):
        for point in points[:number] + points[number + 1 :]:
            with pytest.raises(InvalidResumePoint, match="another from_checkpoint"):
                list(events_of(BOTTLES, resume=point, **start))
    assert ResumePoint.decode(points[1]).tensors["weights.output.bias"].any(), "the checkpoint's own bias"


def test_a_resume_point_from_before_there_were_such_jobs_is_one_of_a_training_from_nothing(origin: bytes) -> None:
    whole = list(events_of(BOTTLES))
    point = ResumePoint.decode(next(event.resume_point for event in whole if isinstance(event, Saved)))
    del point.values["identity"]["from_checkpoint"]
    assert list(events_of(BOTTLES, resume=point.encode()))[-1] == whole[-1]
    with pytest.raises(InvalidResumePoint, match="another from_checkpoint"):
        list(events_of(BOTTLES, resume=point.encode(), from_checkpoint=origin))


def test_a_checkpoint_of_another_network_or_with_more_characters_is_refused(origin: bytes) -> None:
    with pytest.raises(ValueError, match="another network"):
        list(events_of(BOTTLES, "lstm", from_checkpoint=origin))
    with pytest.raises(UnknownCharacter):
        list(events_of(Corpus.of("ab" * 500), from_checkpoint=origin))
