"""Time and memory of one training, in a process of its own.

A process is fresh, so that its largest resident memory (VmHWM) is this training's and no other's.
"""

import hashlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import child
from benchmarks.figures import anonymous_mib, peak_mib, resident_mib
from benchmarks.timing import interleaved_medians, timed
from benchmarks.upload import words
from models.config import ModelConfig, TrainingConfig
from models.vocabulary import Vocabulary
from worker.batches import Corpus, Lanes, encode_corpus, split
from worker.events import Ticked
from worker.learner import Learner
from worker.trainer import train

CHARACTERS = 500_000
"""Of a made-up text, where its size is not what is measured."""
FIRST_CHARACTER = 0x4E00
"""Vocabularies up to 20,000 fit into the block of Chinese characters that begins here."""
SMALLEST_VOCABULARY = 16
"""What the vocabulary costs is the time above that of the same network with so many characters."""


@dataclass(frozen=True)
class Request:
    """What to train; with `ids`, on a file that `encode` has written."""

    model: dict[str, Any]
    training: dict[str, Any]
    threads: int
    vocabulary: int = 65
    ids: str | None = None
    share_seconds: float | None = None
    """So long the vocabulary's share of a step is measured as well; None: it is not."""


class Cost(NamedTuple):
    """What it took."""

    step_ms: float
    characters_per_second: float
    start_mib: float
    """Resident before training: Python and its modules."""
    peak_mib: float
    anonymous_mib: float
    """At the end of training, without what the corpus file backs."""
    read_mib: float | None
    """Resident after every lane has read its part of the file to its end."""
    share: float | None


class Encoded(NamedTuple):
    """A corpus file and what writing it took."""

    characters: int
    seconds: float
    peak_mib: float


def probe(request: Request) -> Cost:
    """The cost of a training, measured in a new process."""
    (cost,) = child.ask("benchmarks.scale_probe", {"train": asdict(request)})
    return Cost(**cost)


def encode(ids: Path, megabytes: int) -> Encoded:
    """Encode a text of so many million characters, which comes in pieces, in a new process."""
    (encoded,) = child.ask("benchmarks.scale_probe", {"encode": {"ids": str(ids), "megabytes": megabytes}})
    return Encoded(**encoded)


def main() -> None:
    request = child.request()
    cost = _encode(**request["encode"]) if "encode" in request else _train(Request(**request["train"]))
    child.answer([cost._asdict()])


def _encode(ids: str, megabytes: int) -> Encoded:
    began = time.perf_counter()
    characters = encode_corpus(_pieces(megabytes), Path(ids), _words_vocabulary())
    return Encoded(characters, time.perf_counter() - began, peak_mib())


def _pieces(megabytes: int) -> Iterator[str]:
    text = words()
    piece = (text * (1_000_000 // len(text) + 1))[:1_000_000]
    return (piece for _ in range(megabytes))


def _words_vocabulary() -> Vocabulary:
    return Vocabulary.of([words()])


def _train(request: Request) -> Cost:
    torch.set_num_threads(request.threads)
    corpus, start_mib = _corpus(request), resident_mib()
    model, training = ModelConfig.from_dict(request.model), TrainingConfig.from_dict(request.training)
    step_seconds = _step_seconds(model, training, corpus)
    peak, anonymous = peak_mib(), anonymous_mib()
    return Cost(
        step_ms=1000 * step_seconds,
        characters_per_second=training.batch_size * training.sequence_length / step_seconds,
        start_mib=start_mib,
        peak_mib=peak,
        anonymous_mib=anonymous,
        read_mib=_read_all(corpus, training) if request.ids else None,
        share=None if request.share_seconds is None else _share(model, training, request),
    )


def _corpus(request: Request) -> Corpus:
    if request.ids:
        return Corpus.open(Path(request.ids), _words_vocabulary(), "0" * 64)
    vocabulary = Vocabulary([chr(FIRST_CHARACTER + i) for i in range(request.vocabulary)])
    return Corpus(_made_up(request.vocabulary), vocabulary, hashlib.sha256(b"").hexdigest())


def _made_up(vocabulary: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A text whose n-th character is about 1/n as frequent as the first, as in those that people write (Zipf)."""
    frequencies = 1 / np.arange(1, vocabulary + 1)
    draw = np.random.default_rng(0)
    return draw.choice(vocabulary, CHARACTERS, p=frequencies / frequencies.sum()).astype(np.uint16)


def _step_seconds(model: ModelConfig, training: TrainingConfig, corpus: Corpus) -> float:
    """Of a whole training with its evaluations: the median time between two steps' ticks."""
    ticks = [time.perf_counter() for event in train(model, training, corpus) if _is_step(event)]
    return statistics.median(np.diff(ticks).tolist())


def _is_step(event: object) -> bool:
    return isinstance(event, Ticked) and event.phase == "training"


def _read_all(corpus: Corpus, training: TrainingConfig) -> float:
    lanes = Lanes(split(corpus, training)[0], training.batch_size, training.sequence_length)
    for step in range(lanes.windows):
        lanes.read(step)
    return resident_mib()


def _share(model: ModelConfig, training: TrainingConfig, request: Request) -> float:
    """Of the vocabulary in a step: embedding, output layer, loss, the optimizer's work on them. Steps take turns."""
    sizes = (request.vocabulary, SMALLEST_VOCABULARY)
    learners = {}
    for size in sizes:
        lanes = Lanes(_made_up(size), training.batch_size, training.sequence_length)
        learners[str(size)] = Learner(model, training, size, lanes, "cpu")
    timings = {
        name: lambda learner=learner: timed(lambda: learner.update(0, 1e-4)) for name, learner in learners.items()
    }
    whole, rest = interleaved_medians(timings, request.share_seconds).values()
    return max(0.0, 1 - rest / whole)


if __name__ == "__main__":
    main()
