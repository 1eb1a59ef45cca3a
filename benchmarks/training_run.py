"""One training in a process of its own, timed, then scored.

The clock runs from the first step to the moment at which a checkpoint is there; scoring comes after, outside it. The
process answers with the run, then with each checkpoint's Point.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import child
from benchmarks.timeline import Point, Protocol, best_within
from models.checkpoint import decode_checkpoint
from models.config import ModelConfig, TrainingConfig
from models.rnn import CharRNN
from worker.batches import Corpus, split
from worker.evaluation import MOST_CHARACTERS, Validation, cold_window_loss
from worker.events import Finished, Saved, Started
from worker.trainer import train


class TrainingRun(NamedTuple):
    """What one training gave."""

    seconds: float
    """From the first step to the end."""
    steps: int
    precision: str
    points: list[Point]


def run_training(
    corpus: Path,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    threads: int,
    protocols: tuple[Protocol, ...],
    limit_seconds: float | None = None,
) -> TrainingRun:
    """Train in a new process. With a limit, of all checkpoints the best one within it alone is scored."""
    request = {
        "corpus": str(corpus),
        "model": model.as_dict(),
        "training": training.as_dict(),
        "threads": threads,
        "protocols": protocols,
        "limit_seconds": limit_seconds,
    }
    first, *others = child.ask("benchmarks.training_run", request)
    return TrainingRun(**first, points=[Point(**point) for point in others])


class Kept(NamedTuple):
    """A checkpoint as it came."""

    point: Point
    checkpoint: bytes


def main() -> None:
    child.answer(_answer(child.request()))


def _answer(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    torch.set_num_threads(request["threads"])
    corpus = Corpus.of(Path(request["corpus"]).read_text(encoding="utf-8"))
    training = TrainingConfig.from_dict(request["training"])
    run, kept = _train(ModelConfig.from_dict(request["model"]), training, corpus)
    yield run
    limit = request["limit_seconds"]
    wanted = best_within([k.point for k in kept], limit) if limit is not None else None
    for point, checkpoint in kept:
        if limit is None or point is wanted:
            point.losses.update(_losses(checkpoint, corpus, training, request["protocols"]))
        yield dataclasses.asdict(point)


def _train(model: ModelConfig, training: TrainingConfig, corpus: Corpus) -> tuple[dict[str, Any], list[Kept]]:
    kept: list[Kept] = []
    began, run = 0.0, {}
    for event in train(model, training, corpus):
        if isinstance(event, Started):
            run["precision"] = event.precision
            began = time.perf_counter()
        elif isinstance(event, Saved) and event.checkpoint is not None:
            point = Point(event.step, time.perf_counter() - began, event.best, {})
            kept.append(Kept(point, event.checkpoint))
        elif isinstance(event, Finished):
            run |= {"steps": event.step, "seconds": time.perf_counter() - began}
    return run, kept


def _losses(
    checkpoint: bytes, corpus: Corpus, training: TrainingConfig, protocols: list[Protocol]
) -> dict[Protocol, float]:
    network = decode_checkpoint(checkpoint)[0]
    begin = len(split(corpus, training)[0])
    return {protocol: _loss(network, corpus, begin, protocol) for protocol in protocols}


def _loss(network: CharRNN, corpus: Corpus, begin: int, protocol: Protocol) -> float:
    if protocol != "carried":
        return cold_window_loss(network, corpus.ids, begin, int(protocol.removeprefix("cold ")), "cpu")
    windows = list(Validation(corpus.ids, begin, MOST_CHARACTERS).losses(network, "cpu"))
    return sum(total for total, _ in windows) / sum(characters for _, characters in windows)


if __name__ == "__main__":
    main()
