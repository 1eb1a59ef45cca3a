"""In which type training multiplies. Weights, gradients and moments are float32 in any case."""

from contextlib import AbstractContextManager

import torch


def multiplying_in(precision: str, device_type: str) -> AbstractContextManager[None]:
    """Within, networks multiply in this type."""
    return torch.autocast(device_type, torch.bfloat16, enabled=precision == "bfloat16")
