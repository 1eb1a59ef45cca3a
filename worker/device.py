"""Which device trains. Run as a program it prints the answer, so that the worker itself need not import torch.

A CUDA device counts only once a kernel has run on it: after a driver update or a lost device `is_available` alone lies.
"""

import sys

import torch


def choose_device(wanted: str) -> str:
    """`auto` resolved to `cuda` where it works, else `cpu`; another name is checked.

    Raises ValueError for a kind of device that is not served.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if torch.device(wanted).type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {wanted!r}")
    return wanted


def main() -> None:
    try:
        device = choose_device(sys.argv[1])
        total = torch.ones(8, device=device).sum().item()
        assert total == 8
    except (RuntimeError, ValueError, AssertionError) as error:
        sys.exit(str(error).splitlines()[0])
    sys.stdout.write(device)


if __name__ == "__main__":
    main()
