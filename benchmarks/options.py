"""What a run of the benchmark was asked for."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CORPUS = Path("../shared/data/tinyshakespeare.txt")
PARTS = ("service", "upload", "queue", "cluster", "sampling", "serving", "speed", "scale", "quality")
"""In the order in which they are measured."""

Extent = Literal["full", "short", "tiny"]
"""`short` takes under three minutes; `tiny` only shows that everything runs: its figures say nothing."""


@dataclass(frozen=True)
class Options:
    """All of it; how each part understands `extent` is its own affair."""

    extent: Extent
    parts: tuple[str, ...]
    threads: int
    corpus: Path
    precision: str
    megabytes: int
    minutes: float
    nanogpt: Path | None
    nanogpt_seconds: float | None
    preset: str
    model: dict[str, Any]
    training: dict[str, Any]
    write_docs: bool


def read_options(arguments: list[str]) -> Options:
    """From the command line. Exits, saying why, when something is wrong with it."""
    chosen = _parser().parse_args(arguments)
    full = chosen.extent == "full"
    return Options(
        extent=chosen.extent,
        parts=tuple(part for part in PARTS if part in (chosen.only or PARTS)),
        threads=chosen.threads,
        corpus=chosen.corpus,
        precision=chosen.precision or ("all" if full else "auto"),
        megabytes=chosen.megabytes or (100 if full else 20),
        minutes=chosen.minutes or {"full": 10.0, "short": 1 / 4, "tiny": 0.01}[chosen.extent],
        nanogpt=chosen.nanogpt,
        nanogpt_seconds=chosen.nanogpt_seconds,
        preset=chosen.preset,
        model=chosen.model,
        training=chosen.training,
        write_docs=chosen.write_docs,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure this checkout on this machine.")
    parser.add_argument("--short", dest="extent", action="store_const", const="short", default="full")
    parser.add_argument("--tiny", dest="extent", action="store_const", const="tiny", help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; may be given several times")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads that compute, all cores")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="text of the quality figures")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16", "all"], help="of the speed figures")
    parser.add_argument("--megabytes", type=int, help="size of the upload")
    parser.add_argument("--minutes", type=float, help="of the longest training of the quality figures (10)")
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of nanoGPT to measure beside ours")
    parser.add_argument("--nanogpt-seconds", type=float, metavar="S", help="its wall time, measured earlier")
    parser.add_argument("--preset", default="auto", help="of the trainings for quality")
    parser.add_argument("--model", type=json.loads, default={}, metavar="JSON", help="settings over the preset's")
    parser.add_argument("--training", type=json.loads, default={}, metavar="JSON", help="settings but the budget")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/benchmarks.md")
    return parser
