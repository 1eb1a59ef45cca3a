"""Validation in lanes measures what one lane does, and leaves no trace."""

import pytest
import torch

from models.config import CELLS, Cell, ModelConfig
from models.rnn import CharRNN
from worker.batches import Corpus
from worker.evaluation import MOST_CHARACTERS, Validation, sample_text

TEXT = "".join(f"{n} is followed by {n + 1}, as {n % 7} days would have it.\n" for n in range(600))


def loss_of(validation: Validation, network: CharRNN) -> float:
    windows = list(validation.losses(network, "cpu"))
    return sum(total for total, _ in windows) / sum(count for _, count in windows)


@pytest.mark.parametrize("cell", CELLS)
def test_sixteen_lanes_agree_with_one(cell: Cell) -> None:
    torch.manual_seed(0)
    corpus = Corpus.of(TEXT)
    network = CharRNN(ModelConfig(cell=cell, hidden_size=24, embedding_size=8), len(corpus.vocabulary))
    many, one = Validation(corpus.ids, 5_000), Validation(corpus.ids, 5_000, lanes=1)
    assert (many.lanes, one.lanes) == (16, 1)
    assert loss_of(many, network) == pytest.approx(loss_of(one, network), abs=1e-3)


def test_every_character_of_the_validation_part_counts_and_warming_does_not() -> None:
    corpus = Corpus.of(TEXT)
    network = CharRNN(ModelConfig(hidden_size=8, embedding_size=4), len(corpus.vocabulary))
    for begin in (1, 2, 300, 5_000, len(corpus.ids) - 513, len(corpus.ids) - 1):
        validation = Validation(corpus.ids, begin)
        counted = sum(count for _, count in validation.losses(network, "cpu"))
        assert validation.characters == len(corpus.ids) - begin
        assert 0 <= counted - validation.characters < validation.lanes


def test_a_small_part_has_fewer_lanes_and_a_long_one_is_capped() -> None:
    ids = Corpus.of("ab" * 1_000_000).ids
    assert Validation(ids, len(ids) - 100).lanes == 1
    assert Validation(ids, len(ids) - 2_000).lanes == 3
    assert Validation(ids, 500_000).characters == MOST_CHARACTERS


def test_the_first_character_is_predicted_from_the_ones_before() -> None:
    # One lane, warmed: the loss of the last characters alone equals that part of the whole text's losses.
    corpus = Corpus.of(TEXT[:600])
    torch.manual_seed(0)
    network = CharRNN(ModelConfig(hidden_size=8, embedding_size=4, dropout=0.0), len(corpus.vocabulary)).eval()
    ids = torch.tensor(corpus.ids.astype("int64"))[None]
    begin = 600 - 100
    with torch.no_grad():
        logits, _ = network(ids[:, begin - 1 - 256 : -1], network.initial_state(1))
        expected = torch.nn.functional.cross_entropy(logits[0, 256:], ids[0, begin:])
    assert loss_of(Validation(corpus.ids, begin), network) == pytest.approx(float(expected), abs=1e-5)


def test_evaluating_and_sampling_draw_no_random_numbers_of_training() -> None:
    corpus = Corpus.of(TEXT)
    network = CharRNN(ModelConfig(hidden_size=8, embedding_size=4, dropout=0.5), len(corpus.vocabulary))
    before = torch.get_rng_state()
    loss_of(Validation(corpus.ids, 20_000), network)
    sample_text(network, corpus.vocabulary, "cpu")
    assert torch.equal(before, torch.get_rng_state())
    assert network.training
