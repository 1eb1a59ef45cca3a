"""Prompts: texts that are being read, each once for all rows that wait for it.

Knows ids and states, no network. Invariant: pieces, joined, are the ids, each once and in order.

Shape suffixes: T characters; a state is [L layers, P parts, H hidden].
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.prefix_cache import Hasher, update
from models.rows import Row
from models.scores import Scores

KEPT_EVERY = 4096
"""Characters, at which a long prompt's state is kept as well: others may begin alike."""

Read = Callable[[Tensor, NDArray[np.int64]], Tensor]
"""The state [L, P, H] after more characters."""


class Prompt:
    """What some rows wait for."""

    def __init__(
        self, ids_T: NDArray[np.int64], read: int, state_LPH: Tensor, rows: list[Row], hasher: Hasher | None = None
    ) -> None:
        self._ids_T = ids_T
        self.read, self.state_LPH = read, state_LPH
        self.rows = rows
        self.reader: Read | None = None
        self.hasher = hasher
        """Of what was read; None if the state is not worth keeping, or not that of these ids alone."""
        self.scores: list[Scores] = []
        """Of all characters but the first, piece by piece, if they are wanted."""

    @property
    def unread(self) -> int:
        """How many characters."""
        return len(self._ids_T) - self.read

    @property
    def alternatives(self) -> int | None:
        """How many are told beside each character's score; None if the prompt is not scored."""
        return self.rows[0].alternatives if self.rows[0].request.echo else None

    def is_of(self, ids_T: NDArray[np.int64]) -> bool:
        """Whether it is the reading of these ids from nothing, and nothing but that."""
        return self.hasher is not None and np.array_equal(self._ids_T, ids_T)

    def next_piece(self, characters: int) -> NDArray[np.int64]:
        """About so many ids, one at least, not beyond where the state is kept."""
        edge = self.read + KEPT_EVERY - self.read % KEPT_EVERY
        piece_T = self._ids_T[self.read : min(self.read + max(1, characters), edge)]
        self.read += len(piece_T)
        if self.hasher is not None:
            update(self.hasher, piece_T)
        return piece_T

    @property
    def next_id(self) -> int:
        """What follows the last piece: the first character of the next, or what the rows read before they write."""
        return int(self._ids_T[self.read]) if self.unread else self.rows[0].last_id
