"""What a step costs, in time and memory, against corpus size, vocabulary, hidden size and sequence length.

The default network (LSTM 1x512, embedding 64, batch 32, sequence 32) unless the axis says otherwise; each training in a
process of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.presets import softmax_samples
from benchmarks.documents import PAGE
from benchmarks.figures import Report
from benchmarks.options import Extent, Options
from benchmarks.scale_plot import draw
from benchmarks.scale_probe import Cost, Request, encode, probe
from models.config import ModelConfig, TrainingConfig

PLOT = "scale.svg"
STEPS: dict[Extent, int] = {"full": 40, "short": 4, "tiny": 3}
SHARE_SECONDS: dict[Extent, float] = {"full": 3.0, "short": 0.5, "tiny": 0.0}

CORPORA: dict[Extent, tuple[int, ...]] = {"full": (1, 10, 100, 1_000), "short": (1, 100), "tiny": (1,)}
"""Millions of characters of one byte each."""
VOCABULARIES: dict[Extent, tuple[int, ...]] = {
    "full": (100, 1_000, 5_000, 20_000),
    "short": (2_000,),
    "tiny": (100,),
}
HIDDEN: dict[Extent, tuple[int, ...]] = {"full": (64, 128, 256, 512, 1_024, 2_048), "short": (), "tiny": ()}
SEQUENCES: dict[Extent, tuple[int, ...]] = {"full": (16, 32, 64, 128, 256, 512), "short": (), "tiny": ()}


class Axis(NamedTuple):
    """One table: what is varied, and the cost at each value."""

    name: str
    values: tuple[int, ...]
    costs: tuple[Cost, ...]


def measure_scale(folder: Path, options: Options) -> list[Report]:
    """A table for each axis; with `write_docs` the plot as well."""
    reports, axes = [], []
    for measure in (_corpora, _vocabularies, _hidden_sizes, _sequences):
        for axis, report in measure(folder, options):
            axes.append(axis)
            reports.append(report)
    if options.write_docs:
        (PAGE.parent / PLOT).write_bytes(draw([(a.name, a.values, a.costs) for a in axes]))
        reports[-1] = Report(**(vars(reports[-1]) | {"plot": PLOT}))
    return reports


def _request(options: Options, *, model: Any = (), training: Any = (), **others: Any) -> Request:
    tiny = {"hidden_size": 16} if options.extent == "tiny" else {}
    config = ModelConfig(**(tiny | dict(model)))
    course = TrainingConfig(**({"steps": STEPS[options.extent]} | dict(training)))
    return Request(config.as_dict(), course.as_dict(), options.threads, **others)


def _corpora(folder: Path, options: Options) -> Iterator[tuple[Axis, Report]]:
    rows, costs = [], []
    for megabytes in CORPORA[options.extent]:
        ids = folder / "ids"
        written = encode(ids, megabytes)
        cost = probe(_request(options, ids=str(ids)))
        ids.unlink()
        costs.append(cost)
        encoding = (f"{written.seconds:.1f}", f"{written.peak_mib:.0f}")
        memory = (cost.peak_mib, cost.anonymous_mib, cost.read_mib or 0.0)
        rows.append((f"{megabytes:,}", *encoding, f"{cost.step_ms:.1f}", *(f"{mib:.0f}" for mib in memory)))
    columns = (
        "corpus, MB",
        "encoding, s",
        "peak MiB",
        "step, ms",
        "training: peak MiB",
        "not of the file",
        "read whole",
    )
    notes = (
        f"{costs[0].start_mib:.0f} MiB of it are Python and torch, before training. `Not of the file`: resident at the "
        "end of training, without what the mapped corpus backs. `Read whole`: resident after every lane has read its "
        "part to the end; pages of the file that are in it are the system's, to be taken back when memory is short.",
    )
    report = Report("Cost against corpus size", columns, tuple(rows), notes)
    yield Axis("corpus, MB", CORPORA[options.extent], tuple(costs)), report


def _vocabularies(_: Path, options: Options) -> Iterator[tuple[Axis, Report]]:
    values = VOCABULARIES[options.extent]
    rows, costs = [], []
    for size in values:
        drawn = softmax_samples(size)
        for samples in dict.fromkeys((0, drawn)):
            cost = _vocabulary_cost(options, size, samples)
            rows.append((*_cells(size, cost), f"{samples:,}" if samples else "all", f"{cost.share or 0.0:.0%}"))
        costs.append(cost)
    columns = ("vocabulary", "step, ms", "characters/s", "peak MiB", "softmax over", "share of the vocabulary")
    notes = (
        "Share of the vocabulary: of a step's time, what goes beyond the same network with 16 characters (embedding, "
        "output layer, loss, the optimizer's work on them). The text is made up, its characters as frequent as Zipf's "
        "law says. Softmax over: of the characters that are no target in a step, so many are drawn; the last row of a "
        "vocabulary is the default, which the plot shows.",
    )
    yield Axis("vocabulary", values, tuple(costs)), Report("Cost against vocabulary", columns, tuple(rows), notes)


def _vocabulary_cost(options: Options, size: int, samples: int) -> Cost:
    seconds = SHARE_SECONDS[options.extent]
    return probe(_request(options, training={"softmax_samples": samples}, vocabulary=size, share_seconds=seconds))


def _hidden_sizes(_: Path, options: Options) -> Iterator[tuple[Axis, Report]]:
    return _simple("hidden size", HIDDEN, options, lambda size: _request(options, model={"hidden_size": size}))


def _sequences(_: Path, options: Options) -> Iterator[tuple[Axis, Report]]:
    return _simple(
        "sequence length", SEQUENCES, options, lambda length: _request(options, training={"sequence_length": length})
    )


def _simple(
    name: str, values: dict[Extent, tuple[int, ...]], options: Options, request: Callable[[int], Request]
) -> Iterator[tuple[Axis, Report]]:
    chosen: Sequence[int] = values[options.extent]
    if not chosen:
        return
    costs = tuple(probe(request(value)) for value in chosen)
    rows = tuple(_cells(value, cost) for value, cost in zip(chosen, costs, strict=True))
    report = Report(f"Cost against {name}", (name, "step, ms", "characters/s", "peak MiB"), rows)
    yield Axis(name, tuple(chosen), costs), report


def _cells(value: int, cost: Cost) -> tuple[str, ...]:
    return (f"{value:,}", f"{cost.step_ms:.1f}", f"{cost.characters_per_second:,.0f}", f"{cost.peak_mib:.0f}")
