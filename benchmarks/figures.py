"""What a part of the benchmark says: a table with a title, and how a process's memory is read."""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

MIB = 1 << 20


@dataclass(frozen=True)
class Report:
    """One table. Every cell is written out; `notes` say how it was measured and what a column means."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    plot: str | None = None
    """Name of a picture in docs/ that shows the same."""

    def show(self, console: Console) -> None:
        """The table on a terminal, its notes below."""
        table = Table(*self.columns, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table, *self.notes, sep="\n")

    def markdown(self) -> str:
        """The table as documentation shows it."""
        lines = [f"### {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line(row) for row in self.rows]
        if self.plot:
            lines += ["", f"![{self.title}]({self.plot})"]
        return "\n".join([*lines, "", *(f"{note}\n" for note in self.notes)]).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@dataclass(frozen=True)
class Figure:
    """`beside` is what the value is to be read against: the machine's own figure, or a bar."""

    name: str
    value: str
    beside: str = ""


def report_of(title: str, figures: Sequence[Figure], notes: tuple[str, ...] = ()) -> Report:
    """Single figures as a table."""
    rows = tuple((figure.name, figure.value, figure.beside) for figure in figures)
    return Report(title, ("figure", "value", "beside it"), rows, notes)


def at_least(value: float, bar: float, unit: str = "", digits: int = 2) -> str:
    """The bar, and whether a value reaches it."""
    return f"≥ {bar:.{digits}f}{unit} {'met' if value >= bar else 'missed'}"


def at_most(value: float | None, bar: float, unit: str = "", digits: int = 2) -> str:
    """The bar, and whether a value stays below it. None: it was never reached."""
    return f"≤ {bar:.{digits}f}{unit} {'met' if value is not None and value <= bar else 'missed'}"


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest of the values that so large a share of them does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def processor_seconds(pid: int) -> float:
    """That a process has computed so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_sockets(pid: int) -> int:
    """How many sockets the process has open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found += os.readlink(entry).startswith("socket:")
    return found


def resident_mib(pid: int | str = "self") -> float:
    """Resident memory now, in MiB."""
    return _status(pid, "VmRSS")


def anonymous_mib(pid: int | str = "self") -> float:
    """Resident memory that no file backs, in MiB: what the system cannot take back."""
    return _status(pid, "RssAnon")


def peak_mib(pid: int | str = "self") -> float:
    """Largest resident memory since `reset_peak`, in MiB."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int | str = "self") -> None:
    """The peak counts from now on (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int | str, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)
