"""In which type training multiplies. Weights, gradients and moments are float32 in any case."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from models.config import Precision
from models.precision import multiplies_bfloat16


def resolve_precision(wanted: Precision, device: str) -> Literal["float32", "bfloat16"]:
    """`auto` is bfloat16 where the hardware multiplies it, else float32."""
    if wanted == "auto":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    return wanted


def multiplying_in(precision: str, device_type: str) -> AbstractContextManager[None]:
    """Within, networks multiply in this type."""
    return torch.autocast(device_type, torch.bfloat16, enabled=precision == "bfloat16")
