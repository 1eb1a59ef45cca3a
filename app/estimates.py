"""The memory that a training would need, known before it is queued.

Knows no torch; counts from the configuration alone. Invariant: an estimate is a lower bound of what training takes, so
a job is refused only if it cannot work.
"""

import os
from contextlib import suppress
from pathlib import Path

from models.config import GATES, ModelConfig, TrainingConfig

BYTES_A_PARAMETER = 16
"""float32 weights, their gradients, and AdamW's two moments."""
BYTES_OF_AVERAGE = 4
"""More for each parameter, where the weights are averaged."""

LETTERS = 27
"""Of a vocabulary under normalization `letters`, at most: a to z and the space."""

LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container finds the memory that it may use: control groups, version 2 and 1."""


def memory_bytes(model: ModelConfig, training: TrainingConfig, vocabulary_size: int) -> int:
    """Bytes of weights, gradients, optimizer moments and the activations that backpropagation through time keeps.

    `vocabulary_size` is the text's as it was uploaded, or what the network will know where that is known.
    """
    if model.normalization == "letters":
        vocabulary_size = min(vocabulary_size, LETTERS)
    per_layer = (GATES[model.cell] + 1) * model.hidden_size
    per_character = model.embedding_size + model.num_layers * per_layer + 2 * vocabulary_size
    activations = 4 * training.batch_size * training.sequence_length * per_character
    per_parameter = BYTES_A_PARAMETER + (BYTES_OF_AVERAGE if training.average_decay else 0)
    return per_parameter * model.parameter_count(vocabulary_size) + activations


def available_memory_bytes() -> int:
    """Of this machine, or of this container where it may use less; the worker may run on another and checks again."""
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
