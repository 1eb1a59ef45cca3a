"""Scoring the validation part of a trained network's text agrees with the trainer's own evaluation of it."""

import math
import random

import pytest
import torch

from models.checkpoint import decode_checkpoint
from models.config import CELLS, Cell, ModelConfig, TrainingConfig
from models.precision import multiplies_bfloat16
from models.scorer import Scorer
from models.stepper import Stepper
from worker.batches import Corpus
from worker.evaluation import Validation
from worker.events import Saved
from worker.trainer import train

TYPES = [torch.float32] + [torch.bfloat16] * multiplies_bfloat16("cpu")
CHARACTERS = 200_000
TRAINING = TrainingConfig(steps=150, batch_size=16, sequence_length=32, evaluate_every=150, validation_fraction=0.5)
BETTER_THAN_LETTERS = 2.0
"""By the letters' frequencies alone the text costs 2.9 nats per character."""


def text_with_memory(characters: int) -> str:
    """What a sentence says last it has said at its beginning, forty characters before."""
    draw, sentences, length = random.Random(5), list[str](), 0
    while length < characters:
        name, day = draw.choice(["Anna", "Boris", "Clara", "David"]), draw.randrange(10, 100)
        sentences.append(f"{name} has {day} days, and so it will be {day} days for {name}.\n")
        length += len(sentences[-1])
    return "".join(sentences)[:characters]


@pytest.mark.parametrize("cell", CELLS)
def test_the_mean_over_the_validation_part_is_the_trainers_to_five_thousandths_of_a_nat(cell: Cell) -> None:
    text = text_with_memory(CHARACTERS)
    corpus = Corpus.of(text)
    model = ModelConfig(cell, hidden_size=48, embedding_size=16)
    *_, saved = (event for event in train(model, TRAINING, corpus) if isinstance(event, Saved))
    assert saved.checkpoint is not None
    network, info = decode_checkpoint(saved.checkpoint)
    network.fast = True  # as the trainer has it
    begin = CHARACTERS - TRAINING.validation_characters(CHARACTERS)
    assert CHARACTERS - begin == 100_000
    windows = list(Validation(corpus.ids, begin).losses(network, "cpu"))
    evaluated = sum(total for total, _ in windows) / sum(count for _, count in windows)
    assert evaluated < BETTER_THAN_LETTERS, "there is something to lose"
    for dtype in TYPES:
        scorer = Scorer(Stepper(network, dtype), info)
        scorer.read(text[begin:])
        scorer.end()
        while not scorer.finished:
            scorer.advance(math.inf)
        assert scorer.loss == pytest.approx(evaluated, abs=0.005)
