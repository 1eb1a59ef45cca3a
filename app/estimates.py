"""The memory that a training would need, known before it is queued.

Knows no torch; counts from the configuration alone. Invariant: an estimate is a lower bound of what training takes, so
a job is refused only if it cannot work.
"""

import os

from models.config import GATES, ModelConfig, TrainingConfig

BYTES_A_PARAMETER = 16
"""float32 weights, their gradients, and AdamW's two moments."""


def memory_bytes(model: ModelConfig, training: TrainingConfig, vocabulary_size: int) -> int:
    """Bytes of weights, gradients, optimizer moments and the activations that backpropagation through time keeps."""
    per_layer = (GATES[model.cell] + 1) * model.hidden_size
    per_character = model.embedding_size + model.num_layers * per_layer + 2 * vocabulary_size
    activations = 4 * training.batch_size * training.sequence_length * per_character
    return BYTES_A_PARAMETER * model.parameter_count(vocabulary_size) + activations


def physical_memory_bytes() -> int:
    """Of this machine; the worker, which may run on another, checks again."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def readable(size: int) -> str:
    """A number of bytes for people: `1.5 GiB`."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit returns")
