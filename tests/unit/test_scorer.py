"""Scores are the network's own, to the rounding; how the work was cut, and what else was asked for, changes no bit."""

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from models import folded, likelihood, scorer
from models.checkpoint_header import CheckpointInfo
from models.config import CELLS, ModelConfig, Normalization
from models.padded_stepper import PaddedStepper
from models.precision import multiplies_bfloat16
from models.rnn import CharRNN
from models.rows import beginning
from models.sampling import NotFinite
from models.scorer import Scorer
from models.stepper import Stepper
from models.vocabulary import EmptyText, UnknownCharacter, Vocabulary

ALPHABET = "\n abcdefghijklmnopqrstuvwxyzé"
TYPES = [torch.float32] + [torch.bfloat16] * multiplies_bfloat16("cpu")
ALL = len(ALPHABET)


def model_of(
    cell: str = "gru", hidden_size: int = 24, normalization: Normalization = "none"
) -> tuple[CharRNN, CheckpointInfo]:
    """A network with random weights, surer of some characters than of others."""
    config = ModelConfig(cell, hidden_size, 2, embedding_size=8, normalization=normalization)  # type: ignore[arg-type]
    torch.manual_seed(3)
    network = CharRNN(config, len(ALPHABET)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 if cell == "rnn_relu" else 2)  # whose state would grow without bound
            parameter.add_(0.2 / hidden_size**0.5 * torch.randn_like(parameter))
    return network, CheckpointInfo(config, Vocabulary(ALPHABET), step=1)


def text_of(characters: int, seed: int = 1) -> str:
    return "".join(random.Random(seed).choices(ALPHABET, k=characters))


def slowly(network: CharRNN, info: CheckpointInfo, text: str) -> np.ndarray:
    """Log-probabilities of every character at every place, by the network itself in float64, the text in one lane."""
    ids = torch.from_numpy(info.vocabulary.encode(beginning(info.vocabulary) + text).astype(np.int64))
    exact = copy.deepcopy(network).double()
    with torch.no_grad():
        values_1TH, _ = exact.read(ids[None, :-1], exact.initial_state(1).double())
        scores_TV: np.ndarray = exact.output(values_1TH)[0].log_softmax(1).numpy()
    return scores_TV


def scored(
    one: Any, info: CheckpointInfo, text: str, pieces: int = 1000, seconds: float = math.inf, **settings: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Scores of the text, ids and scores of the alternatives, the loss."""
    working = Scorer(one, info, **settings)
    for begin in range(0, len(text), pieces):
        working.read(text[begin : begin + pieces])
    working.end()
    told = []
    while not working.finished:
        scores = working.advance(seconds)
        if scores is not None:
            told.append((scores.of_text_N.copy(), scores.top_ids_NK.copy(), scores.top_NK.copy()))
    of_text, ids, top = (np.concatenate(parts) for parts in zip(*told, strict=True))
    assert len(of_text) == working.characters
    return of_text, ids, top, working.loss


@pytest.mark.parametrize("cell", CELLS)
def test_scores_are_the_networks_log_probabilities_and_alternatives_the_likeliest(cell: str) -> None:
    network, info = model_of(cell)
    text = text_of(700)
    of_text, ids, top, loss = scored(Stepper(network, torch.float32), info, text, alternatives=5)
    expected_TV = slowly(network, info, text)
    targets = info.vocabulary.encode(text)
    assert np.allclose(of_text, expected_TV[np.arange(700), targets], atol=1e-4)
    assert loss == pytest.approx(-expected_TV[np.arange(700), targets].mean(), abs=1e-5)
    assert np.allclose(top, -np.sort(-expected_TV, 1)[:, :5], atol=1e-4)
    assert np.allclose(top, np.take_along_axis(expected_TV, ids, 1), atol=1e-4)


@pytest.mark.skipif(len(TYPES) == 1, reason="this processor does not multiply bfloat16")
@pytest.mark.parametrize("cell", CELLS)
def test_products_in_bfloat16_hardly_change_the_mean(cell: str) -> None:
    network, info = model_of(cell, hidden_size=64)
    text = text_of(2000)
    exact, near = (scored(Stepper(network, dtype), info, text)[3] for dtype in TYPES)
    assert 0 < abs(exact - near) < 0.01


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_no_bit_depends_on_how_the_work_is_cut_nor_on_what_else_is_asked_for(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "STRETCH", 96)
    monkeypatch.setattr(scorer, "WARM_CHARACTERS", 40)
    network, info = model_of(hidden_size=33)
    one, text = Stepper(network, dtype), text_of(96 * 41 + 17)
    expected, *_, loss = scored(one, info, text)
    rng = random.Random(4)
    for lanes, few_lanes in ((1, 3), (5, 1), (64, 40)):
        monkeypatch.setattr(scorer, "LANES", lanes)
        monkeypatch.setattr(scorer, "LANES_WITH_ALTERNATIVES", few_lanes)
        for alternatives in (0, 3):
            settings = {"pieces": rng.randint(1, 500), "seconds": rng.choice([0.0, 1e-4]), "alternatives": alternatives}
            of_text, *_, again = scored(one, info, text, **settings)
            assert np.array_equal(of_text, expected)
            assert again == pytest.approx(loss, rel=1e-12)  # its parts are added up in another order


def test_a_text_of_one_stretch_is_read_exactly_and_of_a_longer_one_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "STRETCH", 128)
    network, info = model_of()
    one, text = Stepper(network, torch.float32), text_of(1000)
    expected_TV = slowly(network, info, text)
    exact = expected_TV[np.arange(1000), info.vocabulary.encode(text)]
    for characters in (1, 2, 127, 128, 129, 1000):
        of_text, *_ = scored(one, info, text[:characters])
        assert np.allclose(of_text[:128], exact[: min(characters, 128)], atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_stretches_agree_with_one_lane(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, info = model_of(cell)
    one, text = Stepper(network, torch.float32), text_of(5000)
    monkeypatch.setattr(scorer, "STRETCH", 5000)
    *_, whole = scored(one, info, text)
    monkeypatch.setattr(scorer, "STRETCH", 512)
    *_, cut = scored(one, info, text)
    assert cut == pytest.approx(whole, abs=1e-3)


def test_alternatives_that_are_equally_likely_stand_by_id_and_are_no_more_than_there_are() -> None:
    network, info = model_of()
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.copy_(torch.arange(ALL) % 3)
    for one in (Stepper(network, torch.float32), PaddedStepper(network)):
        _, ids, top, _ = scored(one, info, "ab", alternatives=ALL + 5)
        assert ids.tolist() == [sorted(range(ALL), key=lambda v: (-(v % 3), v))] * 2
        assert np.all(np.diff(top) <= 0)
        assert np.allclose(np.exp(top.astype(np.float64)).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_a_padded_stepper_scores_the_same(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "STRETCH", 200)
    network, info = model_of(cell)
    text = text_of(900)
    both = Stepper(network, torch.float32), PaddedStepper(network)
    fast, padded = (scored(one, info, text, alternatives=4) for one in both)
    for mine, other in zip(fast, padded, strict=True):
        assert np.allclose(mine, other, atol=1e-4)


def test_logits_beyond_all_measure_are_scored_within_bounds_or_told() -> None:
    network, info = model_of()
    with torch.no_grad():
        network.output.bias[info.vocabulary.encode("z")[0]] = -1e30
        network.output.bias[info.vocabulary.encode("y")[0]] = -torch.inf
    for one in (Stepper(network, torch.float32), PaddedStepper(network)):
        of_text, _, top, loss = scored(one, info, "ayz", alternatives=ALL)
        assert of_text[1:].tolist() == [likelihood.LOWEST] * 2
        assert top.min() == likelihood.LOWEST
        assert 6666 < loss < 6670
    for wrong in (torch.nan, torch.inf):
        with torch.no_grad():
            network.output.bias[5] = wrong
        for one in (Stepper(network, torch.float32), PaddedStepper(network)):
            with pytest.raises(NotFinite):
                scored(one, info, "abc")


def test_what_comes_before_an_answer_that_is_not_finite_is_told() -> None:
    network, info = model_of()
    with torch.no_grad():
        network.embedding.weight[info.vocabulary.encode("z")[0]] = torch.nan
    one = Stepper(network, torch.float32)
    assert len(scored(one, info, "a" * 100 + "z")[0]) == 101, "nothing follows the z"
    working = Scorer(one, info)
    working.read("a" * 3000 + "zb")
    working.end()
    told = (scores for scores in iter(lambda: working.advance(math.inf), 0) if scores is not None)
    assert len(next(told).of_text_N) == scorer.PIECE_NUMBERS
    with pytest.raises(NotFinite):
        next(told)


@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_a_text_is_normalized_and_its_first_unknown_character_named_by_its_place_in_the_whole(pieces: int) -> None:
    network, info = model_of(normalization="nfc")
    one = Stepper(network, torch.float32)
    assert np.array_equal(scored(one, info, "cafe\u0301 a", pieces)[0], scored(one, info, "café a")[0])
    with pytest.raises(UnknownCharacter) as refused:
        scored(one, info, "cafe\u0301 € a", pieces)
    assert (refused.value.character, refused.value.position) == ("€", 5)
    assert "at position 5" in str(refused.value)
    skipped = scored(one, info, "cafe\u0301 €a", pieces, skip_unknown=True)
    assert np.array_equal(skipped[0], scored(one, info, "café a")[0])


@pytest.mark.parametrize(("normalization", "text"), [("none", "€€"), ("nfc", "\u0301"), ("none", "")])
def test_a_text_of_which_nothing_is_left_is_refused(normalization: Normalization, text: str) -> None:
    network, info = model_of(normalization=normalization)
    with pytest.raises(EmptyText):
        scored(Stepper(network, torch.float32), info, text, skip_unknown=True)


def test_a_call_works_about_so_long_as_it_is_given() -> None:
    network, info = model_of()
    real, now, steps = Stepper(network, torch.float32), 0.0, list[int]()

    class Timed:
        """Takes a thousandth of a second for each step, by its own clock."""

        lanes, forget = real.lanes, real.forget

        def read_lanes(self, lanes: Any, ids_TR: np.ndarray) -> None:
            self._took(len(ids_TR))
            real.read_lanes(lanes, ids_TR)

        def score_lanes(self, lanes: Any, ids_TR: np.ndarray, *arrays: np.ndarray) -> None:
            self._took(len(ids_TR) - 1)
            real.score_lanes(lanes, ids_TR, *arrays)

        def _took(self, number: int) -> None:
            nonlocal now
            steps.append(number)
            now += number / 1024

    working = Scorer(Timed(), info, clock=lambda: now)
    working.read(text_of(scorer.STRETCH + 700))
    working.end()
    for seconds in (0.0, 16 / 1024, 16 / 1024, 1.0, 0.0):
        assert working.advance(seconds) is None
    assert steps == [1, 16, 16, 223, 1], "to the end of the warming, at most"
    while not working.finished:
        working.advance(math.inf)
    assert max(steps) == scorer.MOST_STEPS
    assert sum(steps) == scorer.WARM_CHARACTERS + scorer.STRETCH


@pytest.mark.parametrize("size", [1, 2, 7, 8, 1000, 20_001])
def test_the_normalizer_of_any_number_of_logits_is_exact(size: int) -> None:
    numbers = np.random.default_rng(size)
    for scale in (0.0, 1.0, 30.0, 1e4):
        logits_V = (scale * numbers.standard_normal(size)).astype(np.float32)
        exact = np.logaddexp.reduce(logits_V.astype(np.float64))
        assert likelihood._normalizer(logits_V, np.empty(size, np.float32)) == pytest.approx(exact, abs=2e-6)


def test_rows_are_scored_together_as_far_as_that_was_tried_and_else_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, info = model_of()
    text = text_of(500)
    expected, *_ = scored(Stepper(network, torch.float32), info, text)
    monkeypatch.setattr(folded, "_is_row_invariant", lambda _: False)
    monkeypatch.setattr(scorer, "STRETCH", 500)
    one = Stepper(network, torch.float32)
    assert list(one._together(3)) == [(0, 1), (1, 2), (2, 3)]
    assert np.allclose(scored(one, info, text)[0], expected, atol=1e-5)
