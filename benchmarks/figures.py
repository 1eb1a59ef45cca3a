"""One measured figure, and how a process's memory is read."""

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """`beside` is what the value is to be read against: the machine's own figure, or a bar."""

    name: str
    value: str
    beside: str = ""


def resident_mib(pid: int) -> float:
    """Resident memory now, in MiB."""
    return _status(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """Largest resident memory since `reset_peak`, in MiB."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """The peak counts from now on (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)
