"""Where a text stands, in memory and as bytes.

Knows no requests. Invariant: what was written as bytes and read again goes on as it would have.

Shape suffixes: V vocabulary; a state is [L layers, P parts, H hidden].
"""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class RowState:
    """Where a text stands: all that it takes to go on with it, beside the weights and the request's settings."""

    hidden_LPH: Tensor
    """After all characters but the last."""
    last_id: int
    position: int
    """Characters written so far, from the first request on."""
    sample: int
    tally_V: NDArray[np.int32] | None = None
    """models.sampling's marks, without FORBIDDEN; None if nothing was counted."""
    held_back: str = ""
    """Written, but not yet shown: it may become the beginning of a stop string."""

    def fits(self, empty_LPH: Tensor, vocabulary: Vocabulary) -> bool:
        """Whether it is one of a network with such states and this vocabulary."""
        is_known = 0 <= self.last_id < len(vocabulary)
        is_counted = self.tally_V is None or len(self.tally_V) == len(vocabulary)
        return self.hidden_LPH.shape == empty_LPH.shape and is_known and is_counted

    def to_bytes(self) -> bytes:
        """Numbers are little-endian: the length of a JSON object (uint32), the object, float32 [L, P, H], then id
        (uint32) and marks (int32) of each character that has some."""
        marked = np.flatnonzero(self.tally_V) if self.tally_V is not None else np.empty(0, np.int64)
        fields = {"last_id": self.last_id, "position": self.position, "sample": self.sample}
        told = json.dumps(
            fields
            | {"shape": list(self.hidden_LPH.shape), "held_back": self.held_back, "marked": len(marked)}
            | {"characters": None if self.tally_V is None else len(self.tally_V)}
        ).encode()
        marks = b"" if self.tally_V is None else self.tally_V[marked].astype("<i4").tobytes()
        hidden = self.hidden_LPH.numpy().astype("<f4").tobytes()
        return len(told).to_bytes(4, "little") + told + hidden + marked.astype("<u4").tobytes() + marks

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` wrote. For bytes that are known to be: of others anything may be raised."""
        end = 4 + int.from_bytes(data[:4], "little")
        told = json.loads(data[4:end])
        shape, marked, characters = told.pop("shape"), told.pop("marked"), told.pop("characters")
        hidden = np.frombuffer(data, "<f4", np.prod(shape, dtype=int), end).astype(np.float32)
        end += 4 * len(hidden)
        tally_V = None
        if characters is not None:
            tally_V = np.zeros(characters, np.int32)
            tally_V[np.frombuffer(data, "<u4", marked, end)] = np.frombuffer(data, "<i4", marked, end + 4 * marked)
        return cls(torch.from_numpy(hidden.reshape(shape)), tally_V=tally_V, **told)
