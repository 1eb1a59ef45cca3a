"""The memory that a training would need, known before it is queued, and the memory that there is.

Knows no torch, so that the service may ask; counts from the configuration and the text's size alone. Invariant: an
estimate is a lower bound of what training takes at its peak, so a job is refused only if it cannot work.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from models.config import GATES, ModelConfig, TrainingConfig
from models.lanes import cut_into_lanes

RESTING_BYTES = 12
"""A parameter's between two steps: the float32 weight and AdamW's two moments."""
GRADIENT_BYTES = 4
AVERAGE_BYTES = 4

LETTERS = 27
"""Of a vocabulary under normalization `letters`, at most: a to z and the space."""

KEPT_ON_CPU: Mapping[str, int] = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 5, "lstm": 6}
"""float32 numbers for each unit and character that models.recurrence keeps for the way back, beside the states."""
LOGIT_BYTES = 8
"""Of each character and entry of the softmax: the logit and its logarithm of a softmax, both float32."""

LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container finds the memory that it may use: control groups, version 2 and 1."""


def memory_bytes(
    model: ModelConfig, training: TrainingConfig, vocabulary_size: int, characters: int, *, device: str = "cpu"
) -> int:
    """The larger of two: activations beside the weights at rest, or the weights with their gradients.

    `vocabulary_size` and `characters` are the text's as it was uploaded; normalization can leave few of either.
    """
    if model.normalization == "letters":
        vocabulary_size = min(vocabulary_size, LETTERS)
    if model.normalization == "none":
        step_characters = _characters_of_a_step(training, characters)
    else:  # what is left may be one lane, read in two windows
        step_characters = training.sequence_length // 2 + 1
    parameters = model.parameter_count(vocabulary_size)
    # Of the output layer's rows, and of the logits, at least those that are drawn.
    summed_over = min(vocabulary_size, training.softmax_samples or vocabulary_size)
    learnt = parameters - (vocabulary_size - summed_over) * (model.hidden_size + 1)
    kept = step_characters * _kept_bytes(model, training, summed_over, device)
    resting = RESTING_BYTES + (AVERAGE_BYTES if training.average_decay else 0)
    return max(resting * parameters + kept, resting * parameters + GRADIENT_BYTES * learnt)


def _characters_of_a_step(training: TrainingConfig, characters: int) -> int:
    """Of the largest step."""
    trained_on = characters - training.validation_characters(characters)
    cut = cut_into_lanes(trained_on, training.batch_size, training.sequence_length)
    return cut.lanes * cut.longest_window


def _kept_bytes(model: ModelConfig, training: TrainingConfig, summed_over: int, device: str) -> int:
    """Of each character, when the way back begins; the softmax sums over so many."""
    # Which precision `auto` is only the device knows: the smaller one, for a lower bound.
    number_bytes = 4 if training.precision == "float32" else 2
    if device.startswith("cuda"):
        unit_bytes, embedding_bytes = (GATES[model.cell] + 1) * number_bytes, number_bytes * model.embedding_size
    else:  # embeddings are looked up, not kept
        unit_bytes, embedding_bytes = 4 * KEPT_ON_CPU[model.cell] + number_bytes, 0
    layers_bytes = model.num_layers * model.hidden_size * unit_bytes
    return embedding_bytes + layers_bytes + LOGIT_BYTES * summed_over


def available_memory_bytes() -> int:
    """Of this machine, or of this container where it may use less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits()])


def _limits() -> list[int]:
    """Those that are set: an absent file, or the word `max`, is none."""
    limits = []
    for path in LIMIT_FILES:
        with suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return limits


def readable(size: int) -> str:
    """A number of bytes for people: `1.5 GiB`."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit returns")
