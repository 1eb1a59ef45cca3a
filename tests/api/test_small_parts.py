"""Presets, estimates and content negotiation, each alone."""

import os
from pathlib import Path

import pytest

from app import estimates
from app.estimates import BYTES_A_PARAMETER, available_memory_bytes, memory_bytes, readable
from app.negotiation import preferred
from app.presets import SHORT_BUDGET_MINUTES, SMALL_CORPUS_CHARACTERS, resolve
from models.config import ModelConfig, TrainingConfig

TYPES = ("application/json", "text/csv")


@pytest.mark.parametrize(
    ("preset", "size"),
    [("tiny", (128, 1)), ("small", (256, 1)), ("medium", (512, 1)), ("large", (1024, 2)), ("auto", (512, 1))],
)
def test_a_preset_is_a_size(preset: str, size: tuple[int, int]) -> None:
    model, _ = resolve(preset, {}, {"minutes": 10}, SMALL_CORPUS_CHARACTERS)  # type: ignore[arg-type]

    assert (model.hidden_size, model.num_layers) == size


def test_auto_is_the_default_network_but_small_for_a_small_corpus_or_little_time() -> None:
    small = ModelConfig(hidden_size=256)
    assert resolve("auto", {}, {"epochs": 5}, SMALL_CORPUS_CHARACTERS)[0] == ModelConfig()
    assert resolve("auto", {}, {"epochs": 5}, SMALL_CORPUS_CHARACTERS - 1)[0] == small
    assert resolve("auto", {}, {"minutes": SHORT_BUDGET_MINUTES}, 10**9)[0] == small
    assert resolve("auto", {}, {"minutes": SHORT_BUDGET_MINUTES + 0.1}, 10**9)[0] == ModelConfig()
    assert resolve("auto", {}, {}, 10**9)[0] == small, "the default budget is one minute"


def test_the_learning_rate_goes_by_the_width_unless_it_is_given() -> None:
    widths = (64, 256, 257, 512, 1024, 4096)
    rates = [resolve("auto", {"hidden_size": width}, {}, 10**6)[1].learning_rate for width in widths]
    assert rates == [6e-3, 6e-3, 4e-3, 4e-3, 3e-3, 2e-3]
    assert resolve("auto", {}, {"learning_rate": 0.1}, 10**6)[1].learning_rate == 0.1


def test_the_estimate_of_memory_grows_with_everything_that_costs_some() -> None:
    base = memory_bytes(ModelConfig(), TrainingConfig(), 65)

    assert base > BYTES_A_PARAMETER * ModelConfig().parameter_count(65)
    for model in (ModelConfig(hidden_size=513), ModelConfig(num_layers=2), ModelConfig(cell="lstm")):
        assert memory_bytes(model, TrainingConfig(), 65) > base
    for training in (
        TrainingConfig(batch_size=33),
        TrainingConfig(sequence_length=65),
        TrainingConfig(average_decay=0.99),
    ):
        assert memory_bytes(ModelConfig(), training, 65) > base
    assert memory_bytes(ModelConfig(), TrainingConfig(), 66) > base


def test_a_large_vocabulary_costs_nothing_where_only_letters_are_left_of_it() -> None:
    letters = ModelConfig(normalization="letters")

    assert memory_bytes(letters, TrainingConfig(), 60_000) == memory_bytes(letters, TrainingConfig(), 27)
    assert memory_bytes(letters, TrainingConfig(), 26) < memory_bytes(letters, TrainingConfig(), 27)
    nfc = ModelConfig(normalization="nfc")
    assert memory_bytes(nfc, TrainingConfig(), 60_000) > memory_bytes(nfc, TrainingConfig(), 27)


@pytest.mark.parametrize(
    ("limits", "available"),
    [
        ((), None),
        (("max\n",), None),
        (("9223372036854771712\n",), None),  # version 1 without a limit
        (("1048576\n",), 1048576),
        (("max\n", "2097152\n"), 2097152),
        (("", "2097152\n"), 2097152),
    ],
)
def test_a_container_has_the_memory_that_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: tuple[str, ...], available: int | None
) -> None:
    files = [tmp_path / str(number) for number in range(2)]
    for file, text in zip(files, limits, strict=False):
        file.write_text(text)
    monkeypatch.setattr(estimates, "LIMIT_FILES", files)

    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available_memory_bytes() == (available or physical)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB"), (2**60, "1048576.0 TiB")],
)
def test_a_size_is_written_for_people(size: int, text: str) -> None:
    assert readable(size) == text


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
