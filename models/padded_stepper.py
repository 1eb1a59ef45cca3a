"""Rows of a network on any device, in batches of one size, character by character: for CUDA.

The same as models.stepper.Stepper, which is faster on a CPU. A batch always has all its places, whether they are in use
or not: products of another number of rows may be rounded otherwise, and a row's text would depend on its neighbours.

Shape suffixes as in models.stepper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.likelihood import LOWEST
from models.rnn import CharRNN
from models.sampling import WRITTEN, NotFinite, SamplingConfig, draw, uniform

PLACES = 32
WINDOW = 16
"""Characters of each lane whose logits are there at once, in float64."""


class PaddedStepper:
    """The rows of one network. All methods belong to one thread."""

    def __init__(self, network: CharRNN) -> None:
        self._network = network.eval()
        self._device = next(network.parameters()).device
        self._empty_LPH = network.initial_state(1, "cpu")[:, :, 0]
        self.bytes = sum(p.numel() * p.element_size() for p in network.parameters())
        """Memory of the network."""
        self._batches_LPRH: list[Tensor] = []
        self._ids_R: list[int] = []
        self._noise: list[tuple[SamplingConfig, int, NDArray[np.int32] | None]] = []
        self._positions: list[int] = []

    def __len__(self) -> int:
        return len(self._ids_R)

    @property
    def empty_state(self) -> Tensor:
        """That of a row which has read nothing [L, P, H]."""
        return self._empty_LPH

    @torch.no_grad()
    def join(
        self,
        state_LPH: Tensor,
        last_id: int,
        sampling: SamplingConfig,
        noise_key: int,
        position: int,
        tally_V: NDArray[np.int32] | None = None,
    ) -> None:
        """As Stepper's."""
        if len(self) == PLACES * len(self._batches_LPRH):
            self._batches_LPRH.append(self._network.initial_state(PLACES, self._device))
        self._place(len(self)).copy_(state_LPH)
        self._ids_R.append(last_id)
        self._noise.append((sampling, noise_key, tally_V))
        self._positions.append(position)

    @torch.no_grad()
    def leave(self, place: int) -> Tensor:
        """As Stepper's."""
        state_LPH = self._place(place).cpu().clone()
        self._place(place).copy_(self._place(len(self) - 1))
        columns: tuple[list[Any], ...] = (self._ids_R, self._noise, self._positions)
        for column in columns:
            column[place] = column[-1]
            column.pop()
        return state_LPH

    @torch.no_grad()
    def states(self, places: Sequence[int]) -> NDArray[np.float32]:
        """As Stepper's."""
        return np.stack([self._place(place).cpu().numpy() for place in places], axis=2)

    @torch.no_grad()
    def write(self, steps: int) -> NDArray[np.int64]:
        """As Stepper's."""
        return np.array([self._write_once() for _ in range(steps)], np.int64)

    @torch.no_grad()
    def read(self, state_LPH: Tensor, ids_T: NDArray[np.int64]) -> Tensor:
        """As Stepper's. Character by character: a text gives the same state however it is cut."""
        state_LPRH = self._network.initial_state(PLACES, self._device)
        state_LPRH[:, :, 0] = state_LPH
        for drawn in ids_T.tolist():
            _, state_LPRH = self._network(torch.full((PLACES, 1), drawn, device=self._device), state_LPRH)
        return state_LPRH[:, :, 0].cpu().clone()

    def reader(self, characters: int) -> Callable[[Tensor, NDArray[np.int64]], Tensor]:
        """As Stepper's."""
        return self.read

    def lanes(self, number: int) -> "_Lanes":
        """As Stepper's."""
        return _Lanes(self._network.initial_state(number, self._device))

    def lanes_from(self, states_LPRH: NDArray[np.float32]) -> "_Lanes":
        """As Stepper's."""
        return _Lanes(torch.from_numpy(states_LPRH).to(self._device))

    def states_of(self, lanes: "_Lanes") -> NDArray[np.float32]:
        """As Stepper's."""
        return lanes.state_LPRH.cpu().numpy()

    def forget(self, lanes: "_Lanes", place: int) -> None:
        """As Stepper's."""
        lanes.state_LPRH[:, :, place] = 0

    @torch.no_grad()
    def read_lanes(self, lanes: "_Lanes", ids_TR: NDArray[np.int64]) -> None:
        """As Stepper's."""
        _, lanes.state_LPRH = self._network.read(self._columns(ids_TR), lanes.state_LPRH)

    @torch.no_grad()
    def score_lanes(
        self,
        lanes: "_Lanes",
        ids_TR: NDArray[np.int64],
        scores_TR: NDArray[np.float32],
        top_ids_TRK: NDArray[np.int32],
        top_scores_TRK: NDArray[np.float32],
    ) -> None:
        """As Stepper's; here it may be rounded otherwise when it is cut otherwise."""
        for begin in range(0, len(scores_TR), WINDOW):
            part = slice(begin, min(begin + WINDOW, len(scores_TR)))
            targets_RT1 = self._columns(ids_TR[1:][part])[:, :, None]
            logits_RTV, lanes.state_LPRH = self._network(self._columns(ids_TR[part]), lanes.state_LPRH)
            scores_RTV = logits_RTV.double().log_softmax(2).clamp(LOWEST, 0)
            scores_TR[part] = scores_RTV.gather(2, targets_RT1)[:, :, 0].T.cpu().numpy()
            if number := top_ids_TRK.shape[2]:
                ids_RTK = logits_RTV.argsort(dim=2, descending=True, stable=True)[:, :, :number]
                top_ids_TRK[part] = ids_RTK.transpose(0, 1).cpu().numpy()
                top_scores_TRK[part] = scores_RTV.gather(2, ids_RTK).transpose(0, 1).cpu().numpy()

    def _columns(self, ids_TR: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(ids_TR).to(self._device).T

    def _place(self, place: int) -> Tensor:
        return self._batches_LPRH[place // PLACES][:, :, place % PLACES]

    def _write_once(self) -> list[int]:
        for first in range(0, len(self), PLACES):
            ids = self._ids_R[first : first + PLACES]
            padded_R1 = torch.tensor([*ids, *[0] * (PLACES - len(ids))], device=self._device)[:, None]
            batch = first // PLACES
            logits_R1V, self._batches_LPRH[batch] = self._network(padded_R1, self._batches_LPRH[batch])
            for row, logits_V in enumerate(logits_R1V[: len(ids), 0].cpu().numpy(), first):
                self._ids_R[row] = self._draw(row, logits_V)
        drawn = list(self._ids_R)
        self._ids_R = [max(0, one) for one in drawn]
        return drawn

    def _draw(self, row: int, logits_V: NDArray[np.float32]) -> int:
        sampling, key, tally_V = self._noise[row]
        position = self._positions[row]
        self._positions[row] += 1
        try:
            drawn = draw(logits_V, sampling, uniform(key, position), tally_V)
        except NotFinite:
            return -1
        if tally_V is not None:
            tally_V[drawn] += WRITTEN
        return drawn


@dataclass
class _Lanes:
    """The states of texts that are scored side by side."""

    state_LPRH: Tensor
