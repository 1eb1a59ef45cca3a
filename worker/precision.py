"""In which type training multiplies. Weights, gradients and moments are float32 in any case."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from models.config import Precision


def resolve_precision(wanted: Precision, device: str) -> Literal["float32", "bfloat16"]:
    """`auto` is bfloat16 where the hardware multiplies it (twice to four times as fast here), else float32."""
    if wanted == "auto":
        return "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return wanted


def multiplying_in(precision: str, device_type: str) -> AbstractContextManager[None]:
    """Within, networks multiply in this type."""
    return torch.autocast(device_type, torch.bfloat16, enabled=precision == "bfloat16")


def _multiplies_bfloat16(device: str) -> bool:
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
