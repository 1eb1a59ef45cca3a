"""Which device trains, and how much memory a training may take there.

Run as a program it prints the answer, so that the worker itself need not import torch.

A CUDA device counts only once a kernel has run on it: after a driver update or a lost device `is_available` alone lies.
"""

import sys

import torch

from models.memory_estimate import available_memory_bytes


def choose_device(wanted: str) -> str:
    """`auto` resolved to `cuda` where it works, else `cpu`; another name is checked.

    Raises ValueError for a kind of device that is not served, RuntimeError for a named one that does not work.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() and not _fault("cuda") else "cpu"
    if torch.device(wanted).type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {wanted!r}")
    if fault := _fault(wanted):
        raise RuntimeError(fault)
    return wanted


def device_memory_bytes(device: str) -> int:
    """All of a GPU's, though others may use some of it; of this machine, or what its container may use."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return available_memory_bytes()


def _fault(device: str) -> str:
    """Why a kernel does not run there; empty if it does."""
    try:
        total = torch.ones(8, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        fault = str(error).strip().partition("\n")[0] or type(error).__name__
    else:
        fault = "" if total == 8 else f"eight ones add up to {total}"
    if fault:
        sys.stderr.write(f"{device} does not work: {fault}\n")
    return fault


def main() -> None:
    try:
        device = choose_device(sys.argv[1])
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{device} {device_memory_bytes(device)}")


if __name__ == "__main__":
    main()
