"""The folded network: it computes what CharRNN does, and a row's bits are its own."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from models import folded, inference, products, sampling, torch_calls
from models.config import CELLS, ModelConfig
from models.padded_stepper import PLACES, PaddedStepper
from models.precision import multiplies_bfloat16
from models.rnn import CharRNN
from models.sampling import SamplingConfig, noise_key
from models.stepper import Stepper, stepper_of

VOCABULARY = 30
GREEDY = SamplingConfig(temperature=0)
TYPES = [torch.float32] + [torch.bfloat16] * multiplies_bfloat16("cpu")


def network_of(cell: str, hidden_size: int = 24, num_layers: int = 2) -> CharRNN:
    torch.manual_seed(1)
    config = ModelConfig(cell, hidden_size, num_layers, embedding_size=8)  # type: ignore[arg-type]
    network = CharRNN(config, VOCABULARY).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 / hidden_size**0.5 * torch.randn_like(parameter))  # biases too
    return network


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_states_and_texts_are_those_of_the_network(cell: str, num_layers: int) -> None:
    network = network_of(cell, num_layers=num_layers)
    ids = torch.randint(VOCABULARY, (1, 40))
    folded = Stepper(network, torch.float32)
    state_LPH = folded.read(folded.empty_state, ids[0].numpy())
    with torch.no_grad():
        _, state_LPBH = network(ids, network.initial_state(1))
        assert torch.allclose(state_LPH, state_LPBH[:, :, 0], rtol=1e-3, atol=1e-5)
        folded.join(state_LPH, 3, GREEDY, 0, 0)
        written, expected = folded.write(20)[:, 0].tolist(), [3]
        for _ in range(20):
            logits, state_LPBH = network(torch.tensor([expected[-1:]]), state_LPBH)
            expected.append(int(logits.argmax()))
    assert written == expected[1:]


@pytest.mark.skipif(len(TYPES) == 1, reason="this processor does not multiply bfloat16")
@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_products_stay_near(cell: str) -> None:
    network = network_of(cell, hidden_size=64, num_layers=1)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 40)
    exact, near = (Stepper(network, dtype) for dtype in (torch.float32, torch.bfloat16))
    expected, state_LPH = (one.read(one.empty_state, ids)[:, 0] for one in (exact, near))
    assert 0 < (state_LPH - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("cell", "hidden_size"), [("rnn_tanh", 100), ("rnn_relu", 33), ("gru", 100), ("lstm", 250), ("gru", 512)]
)
def test_a_row_writes_the_same_bits_alone_and_anywhere_in_a_crowd(
    cell: str, hidden_size: int, dtype: torch.dtype
) -> None:
    """Its state is compared too: a difference in the last bit may take long to show in a text."""
    network = network_of(cell, hidden_size)
    rng = random.Random(hidden_size)
    sampling = SamplingConfig(temperature=2.0)

    def alone(key: int) -> tuple[list[int], torch.Tensor]:
        one = Stepper(network, dtype)
        one.join(one.empty_state, 0, sampling, key, 0)
        return one.write(30)[:, 0].tolist(), one.leave(0)

    crowd = Stepper(network, dtype)
    keys: list[int] = []
    texts: dict[int, list[int]] = {}
    ended: dict[int, torch.Tensor] = {}
    while len(ended) < 40:
        while len(keys) < rng.choice([1, 2, 5, 9, 20, 33, 40]):
            key = noise_key(len(texts), 0)
            crowd.join(crowd.empty_state, 0, sampling, key, 0)
            keys.append(key)
            texts[key] = []
        steps = min(rng.randint(1, 6), *(30 - len(texts[key]) for key in keys))
        for key, written in zip(keys, crowd.write(steps).T.tolist(), strict=True):
            texts[key] += written
        for place in reversed(range(len(keys))):
            if len(texts[keys[place]]) == 30:
                ended[keys[place]] = crowd.leave(place)
                keys[place] = keys[-1]
                keys.pop()
    for key, state_LPH in ended.items():
        expected, expected_LPH = alone(key)
        assert texts[key] == expected
        assert state_LPH.equal(expected_LPH)


@pytest.mark.parametrize(
    ("invariant", "parts"), [(True, [(0, 128), (128, 130)]), (False, [(row, row + 1) for row in range(130)])]
)
def test_rows_go_together_as_far_as_that_was_tried_and_else_alone(
    invariant: bool, parts: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folded, "_is_row_invariant", lambda _: invariant)
    real, called = inference.write_characters, []

    def watched(*arguments: Any) -> None:
        called.append(arguments[2:4])
        real(*arguments)

    monkeypatch.setattr(inference, "write_characters", watched)
    one = Stepper(network_of("gru"), torch.float32)
    for key in range(130):
        one.join(one.empty_state, key % VOCABULARY, SamplingConfig(), key, 0)
    written = one.write(2)
    assert called == parts
    assert written.min() >= 0
    assert written.max() < VOCABULARY


@pytest.mark.parametrize("rows", folded.TRIED_ROWS)
def test_a_difference_between_rows_is_noticed(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = folded._weight(torch.randn(5, 7), torch.randn(5), torch.float32)
    whole = np.arange(folded.MOST_TRIED_ROWS, dtype=np.float32)[:, None]
    monkeypatch.setattr(weight, "times", lambda values: whole[: len(values)])
    assert folded._is_row_invariant(weight)
    monkeypatch.setattr(weight, "times", lambda values: whole[: len(values)] + 1e-3 * (len(values) == rows))
    assert not folded._is_row_invariant(weight)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_the_memory_of_the_folded_network_is_told_before_it_is_taken(cell: str, dtype: torch.dtype) -> None:
    network = network_of(cell)
    one = Stepper(network, dtype)
    matrices = sum(
        weight.inputs * len(weight.times(np.zeros((1, weight.inputs), one._rows.narrow_LRH.dtype))[0])
        for weight in [*one._folded.recurrent, *one._folded.inputs]
    )
    expected = one._folded.table_VG.nbytes + dtype.itemsize * matrices + 4 * network.output.weight.numel()
    assert expected < one.bytes < 1.1 * expected, "biases as well"


def test_why_torch_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lack of memory is known by its words."""
    monkeypatch.setattr(products, "_way", lambda *_: torch_calls.PLAIN)
    one = Stepper(network_of("gru"), torch.float32)
    wrong = folded._weight(torch.randn(72, 24), torch.randn(72), torch.float32)
    wrong.numbers[torch_calls.TYPE] = torch_calls.TORCH.aoti_torch_dtype_int32()
    monkeypatch.setattr(one._folded, "recurrent_LW", np.stack([wrong.numbers] * 2))
    one.join(one.empty_state, 0, SamplingConfig(), 0, 0)
    with pytest.raises(RuntimeError, match="torch refused a product: "):
        one.write(1)
    with pytest.raises(RuntimeError, match="torch refused a product: "):
        one.read(one.empty_state, np.zeros(1, np.int64))


def settings(rng: random.Random) -> SamplingConfig:
    return SamplingConfig(
        rng.choice([0.0, 1e-300, 0.3, 1.0, 5.0]),
        rng.choice([0, 1, 3, 29, 30, 500]),
        rng.choice([0.0, 0.3, 0.9, 0.999, 1.0]),
        rng.choice([0.0, 0.05, 0.5, 1.0]),
        rng.choice([0.1, 1.0, 1.3, 10.0]),
        rng.choice([-10.0, 0.0, 0.7]),
        rng.choice([-0.3, 0.0, 0.25, 10.0]),
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_draw_is_the_slow_ones(seed: int) -> None:
    """The same distribution: for the same noise the same character, whatever the settings, ties included."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    weights_V = np.empty(VOCABULARY)
    for position in range(200):
        logits_V = (rng.choice([0.1, 3, 30]) * numbers.standard_normal(VOCABULARY)).astype(np.float32)
        if rng.random() < 0.3:
            logits_V = logits_V.round()  # ties
        if rng.random() < 0.1:
            logits_V[rng.randrange(1, VOCABULARY)] = -np.inf
        chosen, noise = settings(rng), sampling.uniform(noise_key(seed, 0), position)
        temperature = max(chosen.temperature, 2.3e-308) if chosen.temperature else 0.0
        tally_V = numbers.integers(0, rng.choice([1, 4, 400]), VOCABULARY, dtype=np.int32)
        tally_V[rng.randrange(VOCABULARY)] &= ~sampling.FORBIDDEN
        expected = sampling.draw(logits_V, chosen, noise, tally_V)
        penalties = chosen.repetition_penalty, chosen.presence_penalty, chosen.frequency_penalty
        inference.adjust(logits_V, tally_V, *penalties)
        drawn = inference.draw(logits_V, temperature, chosen.top_k, chosen.top_p, chosen.min_p, noise, weights_V)
        assert drawn == expected, (chosen, logits_V)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 7, VOCABULARY - 1])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_that_is_not_finite_is_no_character(wrong: float, place: int, temperature: float) -> None:
    logits_V = np.ones(VOCABULARY, np.float32)
    logits_V[place] = wrong
    assert inference.draw(logits_V, temperature, 0, 1.0, 0.0, 0.5, np.empty(VOCABULARY)) == -1


def test_the_noise_is_the_slow_ones() -> None:
    for key in (0, 1, 2**64 - 1, noise_key(12345, 0)):
        for position in (0, 1, 999_999):
            assert inference.uniform(np.uint64(key), position) == sampling.uniform(key, position)


def steppers(cell: str) -> list[Any]:
    network = network_of(cell)
    return [Stepper(network, torch.float32), PaddedStepper(network)]


@pytest.mark.parametrize("cell", CELLS)
def test_padded_batches_write_the_same_texts(cell: str) -> None:
    """More rows than one batch has, some of which leave and go on."""
    written: list[list[list[int]]] = []
    for one in steppers(cell):
        for key in range(PLACES + 5):
            state_LPH = one.read(one.empty_state, np.arange(key % 4))
            one.join(state_LPH, key % VOCABULARY, SamplingConfig(0.8), noise_key(key, 0), 0)
        rows = [one.write(3).tolist()]
        state_LPH = one.leave(2)
        rows.append(one.write(2).tolist())
        one.join(state_LPH, rows[0][-1][2], SamplingConfig(0.8), noise_key(2, 0), 3)
        rows.append(one.write(4).tolist())
        assert len(one) == PLACES + 5
        written.append(rows)
    assert written[0] == written[1]


def test_the_device_says_which() -> None:
    assert isinstance(stepper_of(network_of("gru")), Stepper)
    assert isinstance(stepper_of(network_of("gru").to("meta")), PaddedStepper)


def test_a_padded_row_whose_network_answers_nothing_finite_is_told() -> None:
    network = network_of("gru")
    with torch.no_grad():
        network.output.bias[0] = torch.nan
    for one in (Stepper(network, torch.float32), PaddedStepper(network)):
        one.join(one.empty_state, 0, SamplingConfig(), 0, 0)
        assert one.write(2).tolist() == [[-1], [-1]]
