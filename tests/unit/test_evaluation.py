"""Validation in lanes measures what one lane does, and leaves no trace."""

import math

import numpy as np
import pytest
import torch

from models.checkpoint import CheckpointInfo
from models.config import CELLS, Cell, ModelConfig, TrainingConfig
from models.engine import Engine
from models.rnn import CharRNN
from models.rows import RowRequest
from models.sampling import NotFinite, SamplingConfig
from models.stepper import Stepper
from worker.batches import Corpus
from worker.evaluation import MOST_CHARACTERS, WARM_CHARACTERS, Validation, cold_window_loss, sample_text
from worker.recipe import most_validation_characters

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


def test_of_a_part_that_is_too_long_stretches_are_read_that_are_spread_evenly_over_it() -> None:
    # A text of 32 kinds in a row: what is read of it names its place.
    ids = np.repeat(np.arange(32), 1_000)
    begin, most = 8_000, 8_192
    seen: list[np.ndarray] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.evaluation._window_loss", lambda _, ids_BT, state: (seen.append(ids_BT[:, 1:]), state))
        validation = Validation(ids, begin, most)
        network = CharRNN(ModelConfig(hidden_size=4, embedding_size=4), 32)
        counted = sum(count for _, count in validation.losses(network, "cpu"))
    warming, *stretches = seen
    assert counted == validation.characters == most
    assert warming.shape == (16, WARM_CHARACTERS)
    read = torch.cat(stretches, 1)
    assert read.shape == (16, most // 16)
    kinds = ids[begin:]
    expected = [kinds[b * len(kinds) // 16 :][: most // 16].tolist() for b in range(16)]
    assert read.tolist() == expected
    assert warming[1:].tolist() == [kinds[b * len(kinds) // 16 - 256 :][:256].tolist() for b in range(1, 16)]


def test_tiny_shakespeare_is_evaluated_whole_in_a_minute() -> None:
    characters, training = 1_115_394, TrainingConfig()
    part = training.validation_characters(characters)
    validation = Validation(np.zeros(characters, np.uint16), characters - part, most_validation_characters(training, 1))
    assert validation.characters == part == 111_539
    assert validation.lanes == 16


def test_the_sample_is_drawn_as_generation_draws() -> None:
    corpus = Corpus.of(TEXT)
    torch.manual_seed(0)
    network = CharRNN(ModelConfig(hidden_size=8, embedding_size=4), len(corpus.vocabulary))
    engine = Engine(Stepper(network, torch.float32), CheckpointInfo(network.config, corpus.vocabulary, 0))
    engine.admit([1], RowRequest(max_characters=120, seed=0, sampling=SamplingConfig(temperature=0.8)))
    generated = "".join(output.text for _ in range(120) for output in engine.step())
    assert sample_text(network.train(), corpus.vocabulary, "cpu") == generated


def test_a_network_whose_answer_is_no_number_gives_no_sample() -> None:
    corpus = Corpus.of(TEXT)
    network = CharRNN(ModelConfig(hidden_size=8, embedding_size=4), len(corpus.vocabulary))
    torch.nn.init.constant_(network.output.bias, float("nan"))
    with pytest.raises(NotFinite):
        sample_text(network, corpus.vocabulary, "cpu")


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


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("at_once", [1, 40, 100_000])
def test_a_cold_window_is_predicted_from_its_own_characters_alone(
    cell: Cell, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.evaluation.COLD_CHARACTERS", at_once)
    corpus = Corpus.of(TEXT)
    torch.manual_seed(0)
    network = CharRNN(ModelConfig(cell=cell, hidden_size=8, embedding_size=4), len(corpus.vocabulary)).eval()
    ids, begin, window = corpus.ids[:700], 511, 20
    data = torch.tensor(ids[begin:].astype("int64"))
    losses = []
    for i in range(0, len(data) - window, window):
        x, y = data[i : i + window], data[i + 1 : i + 1 + window]
        with torch.no_grad():
            logits, _ = network(x[None], network.initial_state(1))
        losses.append(torch.nn.functional.cross_entropy(logits[0], y).item())
    assert len(losses) == 9
    assert cold_window_loss(network, ids, begin, window, "cpu") == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_last_character_of_the_text_may_end_a_cold_window_and_a_shorter_rest_does_not_count() -> None:
    # Predicts the other of two characters, surely; at the end the text breaks its rule.
    network = CharRNN(ModelConfig(cell="rnn_tanh", hidden_size=2, embedding_size=2), 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.embedding.weight.copy_(torch.tensor([[-9.0, 0], [9, 0]]))
        network.layers[0].weight_ih_l0.copy_(torch.eye(2))
        network.output.weight.copy_(torch.tensor([[9.0, 0], [-9, 0]]))
    alternating = np.arange(101) % 2
    broken = alternating.copy()
    broken[-1] = 1 - broken[-1]
    assert cold_window_loss(network, alternating, 0, 50, "cpu") < 1e-4
    assert cold_window_loss(network, broken, 0, 50, "cpu") == pytest.approx(18 / 100, rel=1e-3)
    assert cold_window_loss(network, broken, 1, 33, "cpu") == pytest.approx(18 / 99, rel=1e-3)
    assert cold_window_loss(network, broken, 2, 49, "cpu") == pytest.approx(18 / 98, rel=1e-3)
    assert cold_window_loss(network, broken, 3, 50, "cpu") < 1e-4, "98 characters, one window"


def test_a_text_without_a_whole_cold_window_is_refused() -> None:
    network = CharRNN(ModelConfig(hidden_size=2, embedding_size=2), 2)
    ids = np.arange(100) % 2
    assert math.isfinite(cold_window_loss(network, ids, 50, 49, "cpu"))
    with pytest.raises(ValueError, match="50 characters hold no window of 50"):
        cold_window_loss(network, ids, 50, 50, "cpu")


def test_evaluating_and_sampling_draw_no_random_numbers_of_training() -> None:
    corpus = Corpus.of(TEXT)
    network = CharRNN(ModelConfig(hidden_size=8, embedding_size=4, dropout=0.5), len(corpus.vocabulary))
    before = torch.get_rng_state()
    for training in (True, False):
        network.train(training)
        loss_of(Validation(corpus.ids, 20_000), network)
        cold_window_loss(network, corpus.ids, 20_000, 64, "cpu")
        sample_text(network, corpus.vocabulary, "cpu")
        assert network.training == training
    assert torch.equal(before, torch.get_rng_state())
