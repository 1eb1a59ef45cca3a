"""Presets and content negotiation, each alone."""

from functools import partial

import pytest

from app import presets
from app.negotiation import preferred
from app.presets import SHORT_BUDGET_MINUTES, SHORTEST_BUDGET_MINUTES, SIZES, SMALL_CORPUS_CHARACTERS

resolve = partial(presets.resolve, vocabulary_size=65)
TYPES = ("application/json", "text/csv")


@pytest.mark.parametrize(
    ("preset", "size"),
    [
        ("tiny", ("gru", 256, 1)),
        ("small", ("lstm", 384, 1)),
        ("medium", ("lstm", 512, 1)),
        ("large", ("lstm", 1024, 2)),
        ("auto", ("lstm", 512, 1)),
    ],
)
def test_a_preset_is_a_network(preset: str, size: tuple[str, int, int]) -> None:
    model, _ = resolve(preset, {}, {"minutes": 10}, SMALL_CORPUS_CHARACTERS)  # type: ignore[arg-type]

    assert (model.cell, model.hidden_size, model.num_layers) == size
    assert resolve(preset, {"cell": "rnn_tanh"}, {}, 10**6)[0].cell == "rnn_tanh"  # type: ignore[arg-type]


def test_auto_is_medium_but_smaller_for_a_small_corpus_or_little_time() -> None:
    def size(budget: dict[str, float], characters: int, *, on_gpu: bool = False) -> str:
        hidden = resolve("auto", {}, budget, characters, on_gpu=on_gpu)[0].hidden_size
        return next(name for name, numbers in SIZES.items() if numbers["hidden_size"] == hidden)

    assert size({"epochs": 5}, SMALL_CORPUS_CHARACTERS) == "medium"
    assert size({"epochs": 5}, SMALL_CORPUS_CHARACTERS - 1) == "small"
    for on_gpu, shortest, short in ((False, "tiny", "small"), (True, "medium", "medium")):
        assert size({"minutes": SHORTEST_BUDGET_MINUTES}, 10**9, on_gpu=on_gpu) == shortest
        assert size({"minutes": SHORTEST_BUDGET_MINUTES + 0.01}, 10**9, on_gpu=on_gpu) == short
        assert size({"minutes": SHORT_BUDGET_MINUTES}, 10**9, on_gpu=on_gpu) == short
        assert size({"minutes": SHORT_BUDGET_MINUTES + 0.1}, 10**9, on_gpu=on_gpu) == "medium"
        assert size({}, SMALL_CORPUS_CHARACTERS - 1, on_gpu=on_gpu) == "small"
    assert size({}, 10**9) == "small", "the default budget is one minute"


@pytest.mark.parametrize(
    ("budget", "dropout"),
    [
        ({"epochs": 9}, 0.1),
        ({"epochs": 10}, 0.4),
        ({"steps": 8_000}, 0.1),
        ({"steps": 9_000}, 0.4),
        ({"steps": 5_000, "batch_size": 64}, 0.4),
        ({"minutes": 2}, 0.1),
        ({"minutes": 10}, 0.4),
    ],
)
def test_many_passes_take_more_dropout_unless_it_is_given(budget: dict[str, float], dropout: float) -> None:
    assert resolve("auto", {}, budget, 10**6)[0].dropout == dropout
    assert resolve("auto", {}, budget, 10**8)[0].dropout == (dropout if "epochs" in budget else 0.1)
    assert resolve("auto", {"dropout": 0.2}, budget, 10**6)[0].dropout == 0.2


def test_a_minute_on_a_gpu_makes_more_passes() -> None:
    assert [resolve("auto", {}, {}, 10**6, on_gpu=gpu)[0].dropout for gpu in (False, True)] == [0.1, 0.4]


def test_the_learning_rate_goes_by_the_width_unless_it_is_given() -> None:
    widths = (64, 256, 257, 512, 1024, 4096)
    rates = [resolve("auto", {"hidden_size": width}, {}, 10**6)[1].learning_rate for width in widths]
    assert rates == [1e-2, 1e-2, 8e-3, 4e-3, 3e-3, 2e-3]
    assert resolve("auto", {}, {"learning_rate": 0.1}, 10**6)[1].learning_rate == 0.1


def test_of_a_large_vocabulary_some_characters_are_drawn_unless_it_is_said_how_many() -> None:
    def samples(size: int, *, on_gpu: bool = False, model: object = "none", **training: int) -> int:
        settings = {"normalization": model}
        resolved = presets.resolve("auto", settings, training, 10**6, vocabulary_size=size, on_gpu=on_gpu)
        return resolved[1].softmax_samples

    assert samples(presets.LARGE_VOCABULARY) == 0
    assert samples(presets.LARGE_VOCABULARY + 1) == presets.SOFTMAX_SAMPLES
    assert samples(20_000, softmax_samples=0) == 0
    assert samples(20, softmax_samples=7) == 7
    assert samples(20_000, on_gpu=True) == 0
    assert samples(20_000, model="letters") == 0, "of which there are 27 at most"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
        ("text/csv;q=0.1, application/json;q=0.2", "application/json"),
        ("application/json;q=0, */*", "text/csv"),
        ("text/html, */*;q=0.1", "application/json"),
        ("image/png", None),
        ("text/csv;q=0", None),
        ("text/csv;q=x", None),
        (",;,", None),
    ],
)
def test_the_type_with_the_highest_quality_is_chosen(accept: str | None, chosen: str | None) -> None:
    assert preferred(accept, TYPES) == chosen
