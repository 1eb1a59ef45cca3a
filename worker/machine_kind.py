"""What kind of machine trains: equal kinds compute equal bits, with the same number of threads.

Knows no training. A resumed training that finds itself on another kind goes on, and says so.
"""

import platform
from pathlib import Path

import torch

CPU_FILE = Path("/proc/cpuinfo")


def machine_kind(device: str) -> str:
    """Of the device that trains, for people too: `AMD EPYC, AVX512, torch 2.13.0`."""
    if torch.device(device).type == "cuda":
        what = str(torch.cuda.get_device_name(device))
    else:
        what = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{what}, torch {torch.__version__}"


def _processor() -> str:
    """Its name, and the instructions for bfloat16, which hypervisors hide now and then under an equal name."""
    try:
        lines = CPU_FILE.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name") or fields.get("CPU part") or platform.machine()
    seen = [flag for flag in ("avx512_bf16", "amx_bf16", "amx_tile") if flag in fields.get("flags", "").split()]
    return " ".join([name, *seen])
