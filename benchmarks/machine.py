"""What it was measured on: figures of two machines are not compared without it."""

import os
import platform
from pathlib import Path

import torch

from models.precision import resolve_precision

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
"""Those that decide how fast matrices are multiplied, by the kernel's names."""


def machine(threads: int) -> str:
    """Processor, instruction sets, threads, memory, versions, and how busy it is with other things, in one line."""
    cpu = _cpuinfo()
    flags = cpu.get("flags", "").split()
    sets = [name for name in INSTRUCTION_SETS if name in flags]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return ", ".join(
        [
            cpu.get("model name", platform.machine() or "unknown processor"),
            f"{os.cpu_count()} cores of which {threads} compute",
            f"instructions {' '.join(sets) or 'unknown'}",
            f"training in {resolve_precision('auto', 'cpu')} by default",
            f"{memory_gib:.0f} GiB memory",
            f"Python {platform.python_version()}",
            f"torch {torch.__version__}",
            f"load {os.getloadavg()[0]:.1f} before",
        ]
    )


def _cpuinfo() -> dict[str, str]:
    """Of the first processor; empty where there is no such file."""
    if not CPUINFO.exists():
        return {}
    first = CPUINFO.read_text().partition("\n\n")[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
