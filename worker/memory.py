"""How much memory training has taken at its peak.

Knows no training. Invariant: the figure never falls within one process.
"""

import re
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_memory_bytes(device: str) -> int:
    """Of a CUDA device, what its tensors took at most; elsewhere the most that this process had resident.

    Resident are also the pages of the memory-mapped corpus that were read, which the system takes back at will.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    # Not getrusage where there is a choice: on Linux its figure outlives an exec, and would tell of the parent.
    if STATUS.exists() and (told := re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)):
        return 1024 * int(told[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
