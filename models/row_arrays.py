"""What a stepper holds for each of its rows, in arrays that compiled code reads and writes.

Knows no network. Invariant: the narrow hidden states are the states' own, rounded to the products' type. Shape suffixes
as in models.inference.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.products import array_of


@dataclass(frozen=True)
class RowArrays:
    """The arrays that have a place for each row."""

    states_LPRH: NDArray[np.float32]
    narrow_LRH: NDArray[Any]
    """The hidden states in the products' type."""
    ids_R: NDArray[np.int64]
    numbers_R6: NDArray[np.float64]
    top_k_R: NDArray[np.int64]
    keys_R: NDArray[np.uint64]
    positions_R: NDArray[np.int64]
    tallies_R: NDArray[np.int64]

    @classmethod
    def of(cls, states_LPRH: Tensor, dtype: torch.dtype) -> Self:
        R = states_LPRH.shape[2]
        narrow_LRH = array_of(states_LPRH[:, 0].to(dtype, copy=True))
        ids_R, top_k_R, positions_R, tallies_R = np.zeros((4, R), np.int64)
        keys_R, numbers_R6 = np.zeros(R, np.uint64), np.zeros((R, 6))
        return cls(states_LPRH.numpy(), narrow_LRH, ids_R, numbers_R6, top_k_R, keys_R, positions_R, tallies_R)

    def state(self, place: int) -> Tensor:
        """That of one row [L, P, H], a copy."""
        return torch.from_numpy(self.states_LPRH[:, :, place].copy())

    def put_state(self, place: int, state_LPH: Tensor) -> None:
        """Also in the products' type."""
        self.states_LPRH[:, :, place] = state_LPH.numpy()
        dtype = torch.bfloat16 if self.narrow_LRH.dtype == np.uint16 else torch.float32
        self.narrow_LRH[:, place] = array_of(state_LPH[:, 0].to(dtype))

    def move(self, origin: int, place: int) -> None:
        """Everything of one row to another's place."""
        self.states_LPRH[:, :, place] = self.states_LPRH[:, :, origin]
        self.narrow_LRH[:, place] = self.narrow_LRH[:, origin]
        for name in ("ids_R", "numbers_R6", "top_k_R", "keys_R", "positions_R", "tallies_R"):
            array = getattr(self, name)
            array[place] = array[origin]

    def doubled(self) -> Self:
        """With twice as many places."""
        axes = {"states_LPRH": 2, "narrow_LRH": 1}
        arrays = {f.name: (getattr(self, f.name),) * 2 for f in fields(self)}
        return type(self)(**{name: np.concatenate(twice, axes.get(name, 0)) for name, twice in arrays.items()})
