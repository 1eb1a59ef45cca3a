"""The cells of models.recurrence: the arrays that each needs through time and back, and the threads that share them.

Knows no gradient but its own, and nothing of inputs but the rows of a table.

Shape suffixes: T time steps, B rows, M rows of a table, H hidden, P parts of a layer's state, G all gates' sums; a
number is so many blocks of H.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models import gates, walks
from models.products import Weight, array_of
from models.torch_calls import telling_refusals

FEWEST_ROWS = 8
"""Of a thread, as long as there are so many: a product of fewer only reads its matrix from memory."""


class Cell(Protocol):
    """What differs between the cells. Both directions work through time with the recurrent weight that is given."""

    def forward(
        self, ids_TB: Tensor, table_MG: Tensor, state_PBH: Tensor, weight: Weight
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """States [T + 1, B, H], the one before included; the last state [P, B, H]; what `backward` needs."""

    def backward(
        self, d_outputs_TBH: Tensor, d_last_PBH: Tensor, kept: list[Tensor], weight: Weight
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the gates' sums [T, B, G], what the input gave and what the state gave; of the state before."""


class _Vanilla:
    """Elman's: h = tanh or ReLU (input + W h)."""

    def __init__(self, forward: Any, backward: Any) -> None:
        self._forward, self._backward = forward, backward

    def forward(
        self, ids_TB: Tensor, table_MG: Tensor, state_PBH: Tensor, weight: Weight
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        (T, B), H = ids_TB.shape, state_PBH.shape[2]
        states_TBH, hidden_TBH = _states(T, state_PBH, table_MG.dtype), torch.empty(T, B, H)
        _walk(self._forward, weight, B, states_TBH, table_MG, ids_TB, hidden_TBH)
        return states_TBH, hidden_TBH[-1:].clone(), [hidden_TBH]

    def backward(
        self, d_outputs_TBH: Tensor, d_last_PBH: Tensor, kept: list[Tensor], weight: Weight
    ) -> tuple[Tensor, Tensor, Tensor]:
        d_sums_TBH, d_state_PBH = torch.empty_like(d_outputs_TBH), torch.zeros_like(d_last_PBH)
        walked = (d_last_PBH[0], d_state_PBH[0], d_sums_TBH)
        _walk(self._backward, weight, len(d_last_PBH[0]), *walked, d_outputs_TBH, *kept, d_sums_TBH)
        return d_sums_TBH, d_sums_TBH, d_state_PBH


class _Gru:
    """Cho et al. 2014, with the reset gate after the product, as cuDNN and torch have it."""

    def forward(
        self, ids_TB: Tensor, table_MG: Tensor, state_PBH: Tensor, weight: Weight
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        (T, B), G, H = ids_TB.shape, table_MG.shape[1], state_PBH.shape[2]
        states_TBH = _states(T, state_PBH, table_MG.dtype)
        gates_TBG, from_state_TBH, hidden_TBH = torch.empty(T, B, G), torch.empty(T, B, H), torch.empty(T + 1, B, H)
        hidden_TBH[0] = state_PBH[0]
        kept = [gates_TBG, from_state_TBH, hidden_TBH]
        _walk(walks.gru_forward, weight, B, states_TBH, table_MG, ids_TB, *kept)
        return states_TBH, hidden_TBH[-1:].clone(), kept

    def backward(
        self, d_outputs_TBH: Tensor, d_last_PBH: Tensor, kept: list[Tensor], weight: Weight
    ) -> tuple[Tensor, Tensor, Tensor]:
        (T, B, H), dtype = d_outputs_TBH.shape, d_outputs_TBH.dtype
        d_sums_TB4 = torch.empty(T, B, 4 * H, dtype=dtype)  # n of the input, r, z, n of the state
        d_state_PBH = torch.zeros_like(d_last_PBH)
        walked = (d_last_PBH[0], d_state_PBH[0], d_sums_TB4[:, :, H:])
        arrays = (d_outputs_TBH, *kept, d_sums_TB4, d_state_PBH[0], torch.empty(B, H))
        _walk(walks.gru_backward, weight, B, *walked, *arrays)
        return d_sums_TB4[:, :, : 3 * H], d_sums_TB4[:, :, H:], d_state_PBH


class _Lstm:
    """Hochreiter and Schmidhuber 1997, with Gers' forget gate; the state's parts are hidden and cell."""

    def forward(
        self, ids_TB: Tensor, table_MG: Tensor, state_PBH: Tensor, weight: Weight
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        (T, B), G, H = ids_TB.shape, table_MG.shape[1], state_PBH.shape[2]
        states_TBH = _states(T, state_PBH, table_MG.dtype)
        gates_TBG, cells_TBH, squashed_TBH = torch.empty(T, B, G), torch.empty(T + 1, B, H), torch.empty(T, B, H)
        cells_TBH[0] = state_PBH[1]
        hidden_BH, kept = torch.empty(B, H), [gates_TBG, cells_TBH, squashed_TBH]
        _walk(walks.lstm_forward, weight, B, states_TBH, table_MG, ids_TB, *kept, hidden_BH)
        return states_TBH, torch.stack((hidden_BH, cells_TBH[-1])), kept

    def backward(
        self, d_outputs_TBH: Tensor, d_last_PBH: Tensor, kept: list[Tensor], weight: Weight
    ) -> tuple[Tensor, Tensor, Tensor]:
        (T, B, H), dtype = d_outputs_TBH.shape, d_outputs_TBH.dtype
        d_sums_TB4 = torch.empty(T, B, 4 * H, dtype=dtype)
        d_state_PBH = torch.stack((torch.zeros(B, H), d_last_PBH[1]))
        d_hidden_BH, d_cell_BH = d_state_PBH
        arrays = (d_outputs_TBH, *kept, d_sums_TB4, d_cell_BH, torch.empty(B, H))
        _walk(walks.lstm_backward, weight, B, d_last_PBH[0], d_hidden_BH, d_sums_TB4, *arrays)
        return d_sums_TB4, d_sums_TB4, d_state_PBH


def _states(T: int, state_PBH: Tensor, dtype: torch.dtype) -> Tensor:
    """Room for the hidden states in training's precision [T + 1, B, H], the first of them in place."""
    states_TBH = torch.empty(T + 1, *state_PBH.shape[1:], dtype=dtype)
    states_TBH[0] = state_PBH[0]
    return states_TBH


def threads_for(rows: int) -> int:
    """How many threads share the rows of a walk."""
    return max(1, min(torch.get_num_threads(), rows // FEWEST_ROWS))


def _walk(through: Any, weight: Weight, rows: int, *tensors: Tensor) -> None:
    """Have each thread go one of models.walks with rows of its own: they never wait for one another before the end.

    The threads of one product would wait at every time step, and for a whole slice of time beside any other busy
    process.
    """
    arrays = [array_of(tensor) for tensor in tensors]

    def go(first: int, last: int) -> None:
        with telling_refusals():
            through(weight.numbers, first, last, *arrays)

    _in_threads(go, rows, threads_for(rows))


def sums_by_id(ids_TB: Tensor, values_TBG: Tensor, M: int) -> Tensor:
    """The sum of values over all places with the same id, float32 [M, G]. Each thread has columns of its own."""
    G = values_TBG.shape[2]
    sums_MG = torch.zeros(M, G)
    arrays = [array_of(tensor) for tensor in (ids_TB, values_TBG, sums_MG)]
    ids, values, sums = arrays
    _in_threads(lambda first, last: gates.add_by_id(ids, values, first, last, sums), G, torch.get_num_threads())
    return sums_MG


def _in_threads(work: Callable[[int, int], None], count: int, parts: int) -> None:
    """Do `work(first, last)` for `count` things in so many threads, each with adjacent things of its own."""
    threads, flushes = torch.get_num_threads(), _flushes_denormals()

    def do(part: int) -> None:
        torch.set_num_threads(1)  # more in each product would wait for one another at every time step
        work(part * count // parts, (part + 1) * count // parts)

    def do_elsewhere(part: int) -> None:
        torch.set_flush_denormal(flushes)  # a thread's own
        do(part)

    if parts == 1:
        work(0, count)
        return
    others = [_helpers(parts - 1).submit(do_elsewhere, part) for part in range(1, parts)]
    try:
        do(0)  # this thread too: it keeps its core, and the others are given the idle ones
    finally:
        wait(others)  # in any case: they work on memory of the caller's
        torch.set_num_threads(threads)  # a thread's own number is also what later threads begin with
    for other in others:
        other.result()


@cache
def _helpers(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: to begin one takes 0.3 ms, three times in a step, 8 % of a GRU 1x256's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="rows")


def _flushes_denormals() -> bool:
    """Whether this thread takes the smallest numbers for 0."""
    return bool(np.float32(1e-30) * np.float32(1e-10) == 0)


_TANH = _Vanilla(walks.tanh_forward, walks.tanh_backward)
_RELU = _Vanilla(walks.relu_forward, walks.relu_backward)
_GRU, _LSTM = _Gru(), _Lstm()


def cell_of(layer: nn.RNNBase) -> Cell:
    if isinstance(layer, nn.LSTM):
        return _LSTM
    if isinstance(layer, nn.GRU):
        return _GRU
    return _RELU if layer.mode == "RNN_RELU" else _TANH
