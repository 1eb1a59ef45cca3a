"""Presets and content negotiation, each alone."""

import pytest

from app.negotiation import preferred
from app.presets import SHORT_BUDGET_MINUTES, SHORTEST_BUDGET_MINUTES, SMALL_CORPUS_CHARACTERS, resolve
from models.config import ModelConfig

TYPES = ("application/json", "text/csv")


@pytest.mark.parametrize(
    ("preset", "size"),
    [("tiny", (256, 1)), ("small", (384, 1)), ("medium", (512, 1)), ("large", (1024, 2)), ("auto", (512, 1))],
)
def test_a_preset_is_a_size(preset: str, size: tuple[int, int]) -> None:
    model, _ = resolve(preset, {}, {"minutes": 10}, SMALL_CORPUS_CHARACTERS)  # type: ignore[arg-type]

    assert (model.hidden_size, model.num_layers) == size


def test_auto_is_the_default_network_but_small_for_a_small_corpus_or_little_time() -> None:
    small, tiny = ModelConfig(hidden_size=384), ModelConfig(hidden_size=256)
    assert resolve("auto", {}, {"minutes": SHORTEST_BUDGET_MINUTES}, 10**9)[0] == tiny
    assert resolve("auto", {}, {"minutes": SHORTEST_BUDGET_MINUTES + 0.01}, 10**9)[0] == small
    assert resolve("auto", {}, {"minutes": SHORTEST_BUDGET_MINUTES}, 10**9, on_gpu=True)[0] == ModelConfig()
    assert resolve("auto", {}, {"epochs": 5}, SMALL_CORPUS_CHARACTERS)[0] == ModelConfig()
    assert resolve("auto", {}, {"epochs": 5}, SMALL_CORPUS_CHARACTERS - 1)[0] == small
    assert resolve("auto", {}, {"minutes": SHORT_BUDGET_MINUTES}, 10**9)[0] == small
    assert resolve("auto", {}, {"minutes": SHORT_BUDGET_MINUTES + 0.1}, 10**9)[0] == ModelConfig()
    assert resolve("auto", {}, {}, 10**9, on_gpu=True)[0] == ModelConfig()
    assert resolve("auto", {}, {}, SMALL_CORPUS_CHARACTERS - 1, on_gpu=True)[0] == small
    assert resolve("auto", {}, {}, 10**9)[0] == small, "the default budget is one minute"


def test_the_learning_rate_goes_by_the_width_unless_it_is_given() -> None:
    widths = (64, 256, 257, 512, 1024, 4096)
    rates = [resolve("auto", {"hidden_size": width}, {}, 10**6)[1].learning_rate for width in widths]
    assert rates == [6e-3, 6e-3, 5e-3, 4e-3, 3e-3, 2e-3]
    assert resolve("auto", {}, {"learning_rate": 0.1}, 10**6)[1].learning_rate == 0.1


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
