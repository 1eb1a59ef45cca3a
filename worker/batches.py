"""Lanes over an encoded corpus: what training reads at each step, and how the text is split.

Knows no torch and no database. A corpus is memory-mapped: a text of a gigabyte costs its reader no such memory.
Invariant: what is read at a step depends on the corpus, the number of lanes, the sequence length and the step alone.

Shape suffixes: B lanes, T time steps, N characters.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.config import Normalization, TrainingConfig
from models.lanes import cut_into_lanes
from models.vocabulary import Vocabulary, normalize

ENCODE_CHARACTERS = 1 << 20
"""Characters encoded at once, whatever the length of the pieces: some 20 MB of arrays."""

Ids = NDArray[np.integer[Any]]


class CorpusTooShort(ValueError):
    """The text has fewer characters than training needs. `minimum` is how many there must be, after normalization."""

    def __init__(self, characters: int, minimum: int, normalization: Normalization = "none") -> None:
        after = "" if normalization == "none" else f" after normalization `{normalization}`"
        super().__init__(
            f"the text has {characters} characters{after}, training with these settings needs at least {minimum}"
        )
        self.characters = characters
        self.minimum = minimum


def _id_type(vocabulary: Vocabulary) -> type[np.uint16] | type[np.int32]:
    return np.uint16 if len(vocabulary) <= 1 << 16 else np.int32


def encode_corpus(pieces: Iterable[str], ids_path: Path, vocabulary: Vocabulary) -> int:
    """Write the ids of a normalized text that comes in pieces, uint16 or int32 [N]; how many there are.

    Memory is bounded by the longest piece. Raises UnknownCharacter.
    """
    characters = 0
    with ids_path.open("wb") as file:
        for block in chain.from_iterable(map(_blocks, pieces)):
            file.write(vocabulary.encode(block).astype(_id_type(vocabulary)).tobytes())
            characters += len(block)
    return characters


def _blocks(piece: str) -> Iterable[str]:
    return (piece[start : start + ENCODE_CHARACTERS] for start in range(0, len(piece), ENCODE_CHARACTERS))


@dataclass(frozen=True)
class Corpus:
    """A text as ids [N], usually memory-mapped, with its vocabulary and the SHA-256 of what was uploaded."""

    ids: Ids
    vocabulary: Vocabulary
    sha256: str

    @classmethod
    def open(cls, ids_path: Path, vocabulary: Vocabulary, sha256: str) -> Self:
        """The corpus that `encode_corpus` wrote with the same vocabulary."""
        if ids_path.stat().st_size == 0:  # which cannot be mapped
            return cls(np.zeros(0, _id_type(vocabulary)), vocabulary, sha256)
        return cls(np.memmap(ids_path, dtype=_id_type(vocabulary), mode="r"), vocabulary, sha256)

    @classmethod
    def of(cls, text: str, normalization: Normalization = "none", known: str = "") -> Self:
        """The corpus of a text that fits into memory; its vocabulary has the characters `known` as well."""
        normalized = normalize(text, normalization)
        vocabulary = Vocabulary.of([normalized, known])
        ids: Ids = vocabulary.encode(normalized).astype(_id_type(vocabulary))
        return cls(ids, vocabulary, hashlib.sha256(text.encode()).hexdigest())


def split(corpus: Corpus, training: TrainingConfig) -> tuple[Ids, Ids]:
    """The beginning to train on and the end to validate on."""
    begin = len(corpus.ids) - training.validation_characters(len(corpus.ids))
    return corpus.ids[:begin], corpus.ids[begin:]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step reads: the same lanes' characters and, one further, those to predict; int64 [B, T]."""

    inputs_BT: NDArray[np.int64]
    targets_BT: NDArray[np.int64]
    wraps: bool
    """The lanes are at their beginning: the state that they carried belongs to another place in the text."""


class Lanes:
    """Parallel readers of contiguous parts of a text, which together cover it.

    Lane b begins at b/B of the text. A lane's pass (an epoch) is cut into windows (models.lanes).
    """

    def __init__(self, ids: Ids, lanes: int, sequence_length: int) -> None:
        self.lanes, self.lane_characters, self.windows = cut_into_lanes(len(ids), lanes, sequence_length)
        self._ids = ids
        self._starts_B = np.arange(self.lanes, dtype=np.int64) * (len(ids) - 1) // self.lanes

    def read(self, step: int) -> Batch:
        """What the optimizer's update number `step` (from 0) reads. Every `windows` steps the lanes wrap."""
        window = step % self.windows
        begin, end = (edge * self.lane_characters // self.windows for edge in (window, window + 1))
        ids_BT = read_windows(self._ids, self._starts_B + begin, end - begin + 1)
        return Batch(ids_BT[:, :-1], ids_BT[:, 1:], wraps=window == 0)


def read_windows(ids: Ids, starts_B: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The ids of one window from each start, int64 [B, length]."""
    windows_BT: NDArray[np.int64] = ids[starts_B[:, None] + np.arange(length)].astype(np.int64)
    return windows_BT
