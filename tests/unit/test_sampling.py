"""Drawing characters: filters against a slow reference, the distribution against chi-square, noise against itself."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.sampling import NotFinite, SamplingConfig, draw, noise_key, uniform, weights


def slow_reference(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> list[float]:
    """Probabilities after the filters, in plain Python, each filter written from its definition."""
    top = max(logits)
    odds = [math.exp((x - top) / temperature) for x in logits]
    alive = {i: odds[i] / sum(odds) for i in range(len(odds))}
    if top_k:
        alive = dict(sorted(alive.items(), key=lambda item: (-item[1], item[0]))[:top_k])
    total = sum(alive.values())
    alive = {i: p / total for i, p in alive.items()}
    nucleus: dict[int, float] = {}
    for i, p in sorted(alive.items(), key=lambda item: (-item[1], item[0])):
        nucleus[i] = p
        if sum(nucleus.values()) >= top_p:
            break
    best = max(nucleus.values())
    nucleus = {i: p for i, p in nucleus.items() if p >= min_p * best}
    total = sum(nucleus.values())
    return [nucleus.get(i, 0.0) / total for i in range(len(logits))]


def probabilities(logits: NDArray[np.float32], sampling: SamplingConfig) -> NDArray[np.float64]:
    weighed = weights(logits, sampling)
    return np.asarray(weighed / weighed.sum())


def random_logits(rng: random.Random) -> NDArray[np.float32]:
    size = rng.choice([1, 2, 3, 7, 65])
    spread = rng.choice([0.1, 1.0, 4.0])
    return np.array([rng.gauss(0, spread) for _ in range(size)], dtype=np.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 1000},
        {"top_p": 0.05},
        {"top_p": 0.6},
        {"top_p": 0.97},
        {"min_p": 0.01},
        {"min_p": 0.3},
        {"min_p": 1.0},
        {"top_k": 5, "top_p": 0.8},
        {"top_k": 4, "min_p": 0.2},
        {"top_k": 5, "top_p": 0.7, "min_p": 0.25},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_every_filter_agrees_with_a_slow_reference(settings: dict[str, float], temperature: float) -> None:
    rng = random.Random(f"{settings}{temperature}")
    everything = {"top_k": 0, "top_p": 1.0, "min_p": 0.0} | settings
    for _ in range(40):
        logits = random_logits(rng)
        expected = slow_reference([float(x) for x in logits], temperature, **everything)  # type: ignore[arg-type]
        got = probabilities(logits, SamplingConfig(temperature, **everything))  # type: ignore[arg-type]
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)


def test_top_k_comes_before_top_p_and_both_before_min_p() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32))
    # Of all four, 0.55 needs two characters; of the two likeliest, renormalised to 4/7 and 3/7, it needs one.
    assert np.flatnonzero(weights(logits, SamplingConfig(top_p=0.55))).tolist() == [0, 1]
    assert np.flatnonzero(weights(logits, SamplingConfig(top_k=2, top_p=0.55))).tolist() == [0]
    # The temperature comes first of all: at 0.5 the odds are squared, and one character holds 0.53 of the whole.
    assert np.flatnonzero(weights(logits, SamplingConfig(temperature=0.5, top_p=0.53))).tolist() == [0]


def test_ties_are_ranked_by_the_lowest_id() -> None:
    level = np.zeros(6, dtype=np.float32)
    assert np.flatnonzero(weights(level, SamplingConfig(top_k=2))).tolist() == [0, 1]
    assert np.flatnonzero(weights(level, SamplingConfig(top_p=0.5))).tolist() == [0, 1, 2]
    assert draw(level, SamplingConfig(temperature=0), 0.99) == 0
    assert draw(np.array([0, 2, 1, 2], dtype=np.float32), SamplingConfig(temperature=0), 0.99) == 1


@pytest.fixture(params=[False, True], ids=["denormals kept", "denormals flushed"])
def flush_denormals(request: pytest.FixtureRequest) -> None:
    """As training and the generation process set it, and as everybody else finds it."""
    torch.set_flush_denormal(request.param)


@pytest.mark.usefixtures("flush_denormals")
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-10, 1e-3, 1e6])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30, 3e38])
def test_extreme_temperatures_and_logits_give_weights_that_are_finite(temperature: float, scale: float) -> None:
    logits = (np.array([-1, 0.5, 1, -0.25], dtype=np.float32) * np.float32(scale)).astype(np.float32)
    weighed = weights(logits, SamplingConfig(temperature, top_k=3, top_p=0.9, min_p=0.01))
    assert np.isfinite(weighed).all()
    assert weighed.max() == 1
    assert weighed[draw(logits, SamplingConfig(temperature), 0.999999)] >= 0


@pytest.mark.usefixtures("flush_denormals")
def test_the_smallest_share_keeps_the_likeliest_character_alone() -> None:
    logits = np.array([1, 3, 2], dtype=np.float32)
    assert np.flatnonzero(weights(logits, SamplingConfig(top_p=float("5e-324")))).tolist() == [1]


def test_the_coldest_temperature_is_greedy_and_the_hottest_level() -> None:
    logits = np.array([1, 3, 2], dtype=np.float32)
    assert {draw(logits, SamplingConfig(1e-300), u / 64) for u in range(64)} == {1}
    np.testing.assert_allclose(probabilities(logits, SamplingConfig(1e6)), [1 / 3] * 3, rtol=1e-5)


def test_impossible_characters_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0, -np.inf, 0, -np.inf], dtype=np.float32)
    drawn = {draw(logits, SamplingConfig(), u) for u in (0.0, 0.25, 0.5, 0.75, 1 - 2**-53)}
    assert drawn == {1, 3}


@pytest.mark.parametrize("bad", [[np.nan, 0], [0, np.inf], [-np.inf, -np.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_that_is_not_finite_is_refused(bad: list[float], temperature: float) -> None:
    with pytest.raises(NotFinite):
        draw(np.array(bad, dtype=np.float32), SamplingConfig(temperature), 0.5)


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_k": -1}, {"top_p": -1},
     {"top_p": 1.1}, {"top_p": math.nan}, {"min_p": -0.1}, {"min_p": 2}, {"repetition_penalty": 0},
     {"repetition_penalty": math.nan}, {"presence_penalty": 10.5}, {"frequency_penalty": -math.inf}],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SamplingConfig(**bad)  # type: ignore[arg-type]


def test_the_draw_is_the_inverse_of_the_distribution_function() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], dtype=np.float64)).astype(np.float32)
    quantiles = [0.0, 0.49, 0.51, 0.74, 0.76, 0.874, 0.876, 1 - 2**-53]
    assert [draw(logits, SamplingConfig(), u) for u in quantiles] == [0, 0, 1, 1, 2, 2, 3, 3]


def chi_square(counts: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_drawn_characters_follow_the_distribution() -> None:
    # Seeds are fixed, so this passes or fails for good; for a right sampler and a random seed the probability that
    # chi-square with 9 degrees of freedom exceeds 33.72 is 1e-4.
    logits = np.linspace(0, 2, 10).astype(np.float32)
    expected = probabilities(logits, SamplingConfig(temperature=0.8)) * 20_000
    key = noise_key(seed=11, sample=0)
    drawn = [draw(logits, SamplingConfig(temperature=0.8), uniform(key, i)) for i in range(20_000)]
    assert chi_square(np.bincount(drawn, minlength=10), expected) < 33.72


def test_noise_is_uniform_along_positions_seeds_and_samples() -> None:
    # Chi-square with 63 degrees of freedom exceeds 119.0 with probability 2.5e-5: three tests, 1e-4 in all.
    number = 32_000
    series = {
        "positions": [uniform(noise_key(1, 0), i) for i in range(number)],
        "seeds": [uniform(noise_key(i, 0), 0) for i in range(number)],
        "samples": [uniform(noise_key(1, i), 5) for i in range(number)],
    }
    for name, values in series.items():
        counts = np.bincount((np.array(values) * 64).astype(np.int64), minlength=64)
        assert chi_square(counts, np.full(64, number / 64)) < 119.0, name


def test_neighbouring_positions_and_seeds_are_not_correlated() -> None:
    # The correlation of 20,000 independent pairs exceeds 5 / sqrt(20,000) with probability 6e-7.
    along = np.array([uniform(noise_key(3, 0), i) for i in range(20_001)])
    across = np.array([uniform(noise_key(4, 0), i) for i in range(20_000)])
    limit = 5 / math.sqrt(20_000)
    assert abs(np.corrcoef(along[:-1], along[1:])[0, 1]) < limit
    assert abs(np.corrcoef(along[:-1], across)[0, 1]) < limit


def test_noise_is_the_published_splitmix64_at_an_index() -> None:
    # First outputs of the reference splitmix64 from state 1234567, printed with many implementations of it.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for position, value in enumerate(published):
        assert Fraction(uniform(1234567, position)) == Fraction(value >> 11, 2**53)


def test_noise_takes_seeds_of_any_size() -> None:
    values = {uniform(noise_key(seed, 0), 0) for seed in (0, 1, 2**53 - 1, 2**63 - 1)}
    assert len(values) == 4
    assert all(0 <= value < 1 for value in values)
