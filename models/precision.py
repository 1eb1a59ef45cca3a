"""Which types a device multiplies."""

from typing import Literal

import torch

from models.config import Precision


def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether products in bfloat16 are the hardware's own there: twice to four times as fast as float32's."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_precision(wanted: Precision, device: str) -> Literal["float32", "bfloat16"]:
    """`auto` is bfloat16 where the hardware multiplies it, else float32."""
    if wanted == "auto":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    return wanted
