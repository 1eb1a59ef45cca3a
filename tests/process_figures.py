"""What the system tells of a process of ours: memory, threads, open files, time on the processor. Linux alone."""

import contextlib
import os
from pathlib import Path


def memory_mib(pid: int, kind: str = "VmRSS") -> float:
    """`VmRSS`, or `VmHWM`: its peak since `forget_peak`."""
    return int(_status(pid, kind).split()[0]) / 1024


def forget_peak(pid: int) -> None:
    """`VmHWM` counts from here."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def threads(pid: int) -> int:
    return int(_status(pid, "Threads"))


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def sockets(pid: int) -> int:
    """Of its open files, those that are sockets."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return sum(link.startswith("socket:") for link in found)


def processor_seconds(pid: int) -> float:
    """Of all its threads, since it began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
