"""Corpora in Ray's object store, each put there once for all trainings that read it meanwhile: so each node fetches it
once. Knows no training.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

PIECE_BYTES = 16 * 2**20
"""More of a text is never held here at once."""


class Texts:
    """By their SHA-256. The one that was used last stays for the next. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: OrderedDict[str, Sequence[Any]] = OrderedDict()
        self._users: dict[str, int] = {}

    def hold(self, sha256: str, path: Path) -> Sequence[Any]:
        """The pieces of the text, which is in the file `path`, until `let_go`. Raises what Ray does when it has no
        room for them."""
        with self._lock:
            if sha256 not in self._pieces:
                self._pieces[sha256] = _put(path)
            self._pieces.move_to_end(sha256)
            self._users[sha256] = self._users.get(sha256, 0) + 1
            self._drop_unused()
            return self._pieces[sha256]

    def let_go(self, sha256: str) -> None:
        """One who held it needs it no more."""
        with self._lock:
            self._users[sha256] -= 1
            if self._users[sha256] == 0:
                del self._users[sha256]
            self._drop_unused()

    def _drop_unused(self) -> None:
        last = next(reversed(self._pieces))
        for sha256 in [each for each in self._pieces if each not in self._users and each != last]:
            del self._pieces[sha256]


def _put(path: Path) -> Sequence[Any]:
    pieces = []
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            pieces.append(ray.put(piece))
    return pieces
