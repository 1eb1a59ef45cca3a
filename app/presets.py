"""Networks by size, for those who do not want to choose numbers.

Knows no HTTP and no store. Invariant: what `resolve` returns is complete and valid, so that a job says exactly how it
is trained; a setting that was given is never changed.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from models.config import InvalidConfig, ModelConfig, TrainingConfig
from models.memory_estimate import LETTERS

Record = TypeVar("Record", ModelConfig, TrainingConfig)

Preset = Literal["auto", "tiny", "small", "medium", "large"]

SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": {"cell": "gru", "hidden_size": 256},
        "small": {"hidden_size": 384},
        "medium": {"hidden_size": 512},
        "large": {"hidden_size": 1024, "num_layers": 2, "embedding_size": 128},
    }
)

SMALL_CORPUS_CHARACTERS = 100_000
"""Below, `auto` is `small`: a medium network of 1.3 million numbers would learn such a text by heart."""
SHORT_BUDGET_MINUTES = 2.0
"""Up to here `auto` is `small` too, on a CPU: one minute on one core made of tiny Shakespeare 1.460 nats with a GRU
1x384, 1.468 with 1x512, 1.469 with 1x256 (docs/recipe.md; the LSTMs were not compared at equal time)."""
SHORTEST_BUDGET_MINUTES = 0.25
"""Up to here it is `tiny`: in seconds the network that reads most is ahead, and a GRU of an LSTM (docs/recipe.md)."""

DROPOUT, MANY_PASSES, DROPOUT_OF_MANY_PASSES = 0.1, 10.0, 0.4
"""From so many passes over a text a network begins to learn it by heart with the usual dropout (docs/recipe.md)."""
CPU_CHARACTERS_PER_MINUTE, GPU_CHARACTERS_PER_MINUTE = 2_500_000, 25_000_000
"""What a budget in minutes is taken to read, to tell how many passes it makes: 1x512 on two cores; ten times that."""

LEARNING_RATES = ((256, 1e-2), (384, 8e-3), (512, 4e-3), (1024, 3e-3))
"""(hidden size up to, peak learning rate): the wider, the lower. Each of the four cells learnt better at 256
with its than with 0.006 (docs/recipe.md)."""
WIDEST_LEARNING_RATE = 2e-3

LARGE_VOCABULARY, SOFTMAX_SAMPLES = 4_000, 250
"""Of more characters so many are drawn at each step on a CPU, where the output layer would take most of it
(docs/recipe.md)."""


def resolve(
    preset: Preset,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    corpus_characters: int,
    *,
    vocabulary_size: int,
    on_gpu: bool = False,
) -> tuple[ModelConfig, TrainingConfig]:
    """Every setting: those given, then the preset's, then the defaults. InvalidConfig names the field in full.

    `on_gpu`: no worker that may take the job trains on a CPU.
    """
    course = _named("training", TrainingConfig, training)
    if preset == "auto":
        preset = _automatic(course, corpus_characters, on_gpu=on_gpu)
    dropout = _dropout(course, corpus_characters, on_gpu=on_gpu)
    config = _named("model", ModelConfig, {**SIZES[preset], "dropout": dropout, **model})
    course = _with_rate(course, config, training)
    known = vocabulary_size if config.normalization != "letters" else LETTERS
    return config, with_softmax_samples(course, training, known, on_gpu=on_gpu)


def resolve_continued(
    preset: Preset, model: Mapping[str, Any], training: Mapping[str, Any], origin: ModelConfig
) -> tuple[ModelConfig, TrainingConfig]:
    """As `resolve`, for a job that goes on from a checkpoint, whose network is `origin`; `with_softmax_samples` is to
    follow, once it is known how many characters the network will know.

    The network stays as it is, but for its dropout, which is no shape. InvalidConfig tells what contradicts it.
    """
    if preset != "auto":
        raise InvalidConfig("preset", f"must be auto, as the network is the checkpoint's, not {preset!r}")
    course = _named("training", TrainingConfig, training)
    config = _named("model", ModelConfig, {**origin.as_dict(), **model})
    for name, value in origin.as_dict().items():
        if name != "dropout" and model.get(name, value) != value:
            raise InvalidConfig(f"model.{name}", f"the checkpoint has {value!r}, not {model[name]!r}: leave it out")
    return config, _with_rate(course, config, training)


def _with_rate(course: TrainingConfig, config: ModelConfig, given: Mapping[str, Any]) -> TrainingConfig:
    return course if "learning_rate" in given else replace(course, learning_rate=learning_rate(config))


def with_softmax_samples(
    course: TrainingConfig, given: Mapping[str, Any], vocabulary_size: int, *, on_gpu: bool
) -> TrainingConfig:
    """With as many as suit the vocabulary, where it is not said how many."""
    if "softmax_samples" in given:
        return course
    return replace(course, softmax_samples=softmax_samples(vocabulary_size, on_gpu=on_gpu))


def _automatic(training: TrainingConfig, corpus_characters: int, *, on_gpu: bool) -> Preset:
    minutes = math.inf if on_gpu or training.minutes is None else training.minutes
    if minutes <= SHORTEST_BUDGET_MINUTES:
        return "tiny"
    return "small" if minutes <= SHORT_BUDGET_MINUTES or corpus_characters < SMALL_CORPUS_CHARACTERS else "medium"


def _dropout(training: TrainingConfig, corpus_characters: int, *, on_gpu: bool) -> float:
    """By how many passes the budget is likely to make."""
    if training.epochs is not None:
        passes = training.epochs
    else:
        characters: float = (training.steps or 0) * training.batch_size * training.sequence_length
        if training.minutes is not None:
            characters = training.minutes * (GPU_CHARACTERS_PER_MINUTE if on_gpu else CPU_CHARACTERS_PER_MINUTE)
        passes = characters / max(1, corpus_characters - training.validation_characters(corpus_characters))
    return DROPOUT if passes < MANY_PASSES else DROPOUT_OF_MANY_PASSES


def learning_rate(model: ModelConfig) -> float:
    """The peak rate for a network of this width, where none is given."""
    return next((rate for width, rate in LEARNING_RATES if model.hidden_size <= width), WIDEST_LEARNING_RATE)


def softmax_samples(vocabulary_size: int, *, on_gpu: bool = False) -> int:
    """How many characters training's loss draws, where it is not said; 0: it takes all."""
    return SOFTMAX_SAMPLES if vocabulary_size > LARGE_VOCABULARY and not on_gpu else 0


def _named(section: str, record: type[Record], values: Mapping[str, Any]) -> Record:
    try:
        return record.from_dict(values)
    except InvalidConfig as error:
        raise InvalidConfig(f"{section}.{error.field}", error.message) from None
