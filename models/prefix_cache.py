"""States of prompts that were read, so that a prompt that begins as one of them is not read again from its beginning.

Knows no network: a state is what it is for these ids, whoever read them. Invariant: at most so many states and bytes
are kept, the most recently used ones.
"""

import hashlib
from bisect import bisect_left, insort
from collections import OrderedDict
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MOST_STATES = 256
MOST_BYTES = 1024 * 1024
"""Of one model, beside its weights."""


class Hasher(Protocol):
    """As hashlib has them."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...

    def copy(self) -> Self: ...


class Prefix(NamedTuple):
    """The longest beginning of a prompt whose state is known; the hash goes on from there."""

    length: int
    state_LPH: Tensor | None
    hasher: Hasher


class PrefixCache:
    """States [L, P, H] by the ids that were read."""

    def __init__(self, most_states: int = MOST_STATES, most_bytes: int = MOST_BYTES) -> None:
        self._most_states, self._most_bytes = most_states, most_bytes
        self._states: OrderedDict[bytes, tuple[int, Tensor]] = OrderedDict()
        self._lengths: list[int] = []  # of all that are kept, ascending
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def longest(self, ids_T: NDArray[np.int64]) -> Prefix:
        """What is known of a prompt: a state, which counts as used, or a length of 0."""
        hasher, hashed = _new_hash(), 0
        found = Prefix(0, None, hasher.copy())
        for length in dict.fromkeys(self._lengths):
            if length > len(ids_T):
                break
            update(hasher, ids_T[hashed:length])
            hashed = length
            if kept := self._states.get(hasher.digest()):
                found = Prefix(length, kept[1], hasher.copy())
        if found.length:
            self._states.move_to_end(found.hasher.digest())
        return found

    def keep(self, hasher: Hasher, length: int, state_LPH: Tensor) -> None:
        """The state after `length` characters, which were hashed."""
        key = hasher.digest()
        if state_LPH.nbytes > self._most_bytes:
            return
        if key in self._states:
            self._states.move_to_end(key)
            return
        self._states[key] = (length, state_LPH)
        self._bytes += state_LPH.nbytes
        insort(self._lengths, length)
        while len(self._states) > self._most_states or self._bytes > self._most_bytes:
            _, (old_length, old_LPH) = self._states.popitem(last=False)
            self._bytes -= old_LPH.nbytes
            del self._lengths[bisect_left(self._lengths, old_length)]


def update(hasher: Hasher, ids_T: NDArray[Any]) -> None:
    """Hash more of a prompt."""
    hasher.update(ids_T.astype(np.uint32).tobytes())


def _new_hash() -> Hasher:
    return hashlib.blake2b(digest_size=16)
