"""`make bench`: measures this checkout on this machine and prints a table.

Figures that depend on the machine stand beside a figure of the machine itself, measured in the same run.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure
from benchmarks.quality import measure_quality
from benchmarks.service import measure_service
from benchmarks.upload import measure_upload

CORPUS = Path("../shared/data/tinyshakespeare.txt")


def machine() -> str:
    """What it was measured on, in one line."""
    model = platform.processor() or "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break
    kernels = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} cores, {model} ({kernels}), Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="text of the quality figure")
    parser.add_argument("--minutes", type=float, default=1.0, help="training time of the quality figure")
    parser.add_argument("--megabytes", type=int, default=100, help="size of the upload")
    parser.add_argument("--only", choices=["service", "upload", "quality"], help="one part alone")
    chosen = parser.parse_args()
    parts: dict[str, Callable[[Path], list[Figure]]] = {
        "service": measure_service,
        "upload": lambda folder: measure_upload(folder, chosen.megabytes),
        "quality": lambda folder: measure_quality(folder, chosen.corpus, chosen.minutes),
    }
    table = Table("figure", "value", "beside it", title=machine())
    for name, measure in parts.items():
        if chosen.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="charsmith-bench-") as folder:
                for figure in measure(Path(folder)):
                    table.add_row(figure.name, figure.value, figure.beside)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
