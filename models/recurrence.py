"""A recurrent layer over a whole sequence on the CPU, with backpropagation through time written by hand.

The same functions as `nn.RNN`, `nn.GRU` and `nn.LSTM`, which are their reference. What is fast about it: the gates of a
time step are one pass over the memory (models.gates), the recurrent weights are laid out once for oneDNN and then
multiplied many times (models.products), each thread goes through time with rows of its own in one compiled call
(models.walks), and the weights' gradient is one product over all time steps.

Shape suffixes: T time steps, B rows, N = T B, V vocabulary, M rows of a table, X input, H hidden, P parts of a layer's
state, G all gates' sums, K any width.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models import gates, walks
from models.products import Weight, onednn_multiplies, refusal

ONEDNN = torch.ops.mkldnn

FEWEST_ROWS = 8
"""Of a thread, as long as there are so many: a product of fewer only reads its matrix from memory."""


def run_layer(layer: nn.RNNBase, values_BTX: Tensor, state_PBH: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [B, T, H] and the last state [P, B, H] of a single layer on the CPU.

    Products are in autocast's type where it is on, as are the outputs; state and gates are float32.
    """
    return _run(layer, None, values_BTX.transpose(0, 1).flatten(0, 1), state_PBH, values_BTX.shape[1])


def run_first_layer(
    layer: nn.RNNBase, ids_BT: Tensor, embedding_VX: Tensor, state_PBH: Tensor
) -> tuple[Tensor, Tensor]:
    """As `run_layer` on the embeddings of ids [B, T].

    Embedding and input weights together are one table [V, G], and so is their gradient: products of as many rows as
    there are characters to know, where these are fewer than the ids.
    """
    lowest, highest = torch.aminmax(ids_BT)
    if lowest < 0 or highest >= len(embedding_VX):
        raise IndexError(f"ids from {lowest} to {highest}, of {len(embedding_VX)} characters that are known")
    if len(embedding_VX) > ids_BT.numel():
        return run_layer(layer, F.embedding(ids_BT, embedding_VX), state_PBH)
    return _run(layer, ids_BT.t().contiguous(), embedding_VX, state_PBH, ids_BT.shape[1])


def _run(
    layer: nn.RNNBase, ids_TB: Tensor | None, values_MX: Tensor, state_PBH: Tensor, T: int
) -> tuple[Tensor, Tensor]:
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    outputs_TBH, last_PBH = _Sequence.apply(_cell(layer), T, ids_TB, values_MX, state_PBH, *weights, dtype)  # type: ignore[no-untyped-call]
    return outputs_TBH.transpose(0, 1), last_PBH


def _linear(values_NK: Tensor, matrix_GK: Tensor, bias_G: Tensor) -> Tensor:
    """values @ matrix.T + bias, of large matrices: by oneDNN, which is faster than MKL on AMD's processors."""
    if onednn_multiplies(values_NK.dtype):
        return ONEDNN._linear_pointwise(values_NK, matrix_GK, bias_G, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(values_NK, matrix_GK, bias_G)


def _product(a_MN: Tensor, b_NK: Tensor) -> Tensor:
    """a @ b in float32, of large matrices, each used once.

    oneDNN where it has AVX-512 (MKL is half as fast there on AMD's processors), else MKL: with AVX2 oneDNN takes twice
    as long as MKL for a transposed matrix.
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    if a_MN.dtype == torch.float32 and wide and onednn_multiplies(torch.float32):
        return ONEDNN._linear_pointwise(a_MN, b_NK.t(), None, "none", [], "")  # type: ignore[no-any-return]
    return (a_MN @ b_NK).float()


def _column_sums(a_NG: Tensor) -> Tensor:
    """The sum over N in float32 [G]: a product, since torch's own sum is slower over strided rows.

    Never by oneDNN, which takes 240 ms with AVX2 where MKL takes 2 (N 4,096, G 1,536).
    """
    return (torch.ones(1, len(a_NG), dtype=a_NG.dtype) @ a_NG)[0].float()


def _array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory as models.gates takes it."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class _Cell(Protocol):
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
        _walk(self._forward, weight, table_MG, ids_TB, hidden_TBH, states_TBH)
        return states_TBH, hidden_TBH[-1:].clone(), [hidden_TBH]

    def backward(
        self, d_outputs_TBH: Tensor, d_last_PBH: Tensor, kept: list[Tensor], weight: Weight
    ) -> tuple[Tensor, Tensor, Tensor]:
        d_sums_TBH, d_state_PBH = torch.empty_like(d_outputs_TBH), torch.zeros_like(d_last_PBH)
        _walk(self._backward, weight, d_last_PBH[0], d_outputs_TBH, *kept, d_sums_TBH, d_state_PBH[0])
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
        _walk(walks.gru_forward, weight, table_MG, ids_TB, *kept, states_TBH)
        return states_TBH, hidden_TBH[-1:].clone(), kept

    def backward(
        self, d_outputs_TBH: Tensor, d_last_PBH: Tensor, kept: list[Tensor], weight: Weight
    ) -> tuple[Tensor, Tensor, Tensor]:
        (T, B, H), dtype = d_outputs_TBH.shape, d_outputs_TBH.dtype
        d_sums_TB4 = torch.empty(T, B, 4 * H, dtype=dtype)  # n of the input, r, z, n of the state
        d_state_PBH = torch.zeros_like(d_last_PBH)
        _walk(walks.gru_backward, weight, d_last_PBH[0], d_outputs_TBH, *kept, d_sums_TB4, d_state_PBH[0])
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
        _walk(walks.lstm_forward, weight, table_MG, ids_TB, *kept, hidden_BH, states_TBH)
        return states_TBH, torch.stack((hidden_BH, cells_TBH[-1])), kept

    def backward(
        self, d_outputs_TBH: Tensor, d_last_PBH: Tensor, kept: list[Tensor], weight: Weight
    ) -> tuple[Tensor, Tensor, Tensor]:
        (T, B, H), dtype = d_outputs_TBH.shape, d_outputs_TBH.dtype
        d_sums_TB4 = torch.empty(T, B, 4 * H, dtype=dtype)
        d_state_PBH = torch.stack((torch.zeros(B, H), d_last_PBH[1]))
        d_hidden_BH, d_cell_BH = d_state_PBH
        _walk(walks.lstm_backward, weight, d_last_PBH[0], d_outputs_TBH, *kept, d_sums_TB4, d_cell_BH, d_hidden_BH)
        return d_sums_TB4, d_sums_TB4, d_state_PBH


def _states(T: int, state_PBH: Tensor, dtype: torch.dtype) -> Tensor:
    """Room for the hidden states in training's precision [T + 1, B, H], the first of them in place."""
    states_TBH = torch.empty(T + 1, *state_PBH.shape[1:], dtype=dtype)
    states_TBH[0] = state_PBH[0]
    return states_TBH


def _threads_for(rows: int) -> int:
    return max(1, min(torch.get_num_threads(), rows // FEWEST_ROWS))


def _walk(through: Any, weight: Weight, *tensors: Tensor) -> None:
    """Have each thread go one of models.walks with rows of its own: they never wait for one another before the end.

    The threads of one product would wait at every time step, and for a whole slice of time beside any other busy
    process.
    """
    rows, arrays = tensors[-1].shape[-2], [_array(tensor) for tensor in tensors]

    def go(first: int, last: int) -> None:
        try:
            through(weight.numbers, first, last, *arrays)
        except RuntimeError as error:
            raise refusal() from error  # compiled code raises what it knew when it was compiled, no more

    _in_threads(go, rows, _threads_for(rows))


def _sums_by_id(ids_TB: Tensor, values_TBG: Tensor, M: int) -> Tensor:
    """The sum of values over all places with the same id, float32 [M, G]. Each thread has columns of its own."""
    G = values_TBG.shape[2]
    sums_MG = torch.zeros(M, G)
    arrays = [_array(tensor) for tensor in (ids_TB, values_TBG, sums_MG)]
    ids, values, sums = arrays
    _in_threads(lambda first, last: gates.add_by_id(ids, values, first, last, sums), G, torch.get_num_threads())
    return sums_MG


def _in_threads(work: Callable[[int, int], None], count: int, parts: int) -> None:
    """Do `work(first, last)` for `count` things in so many threads, each with adjacent things of its own.

    New threads each time: they cost 0.3 ms and, on Linux, inherit how this one treats denormal numbers.
    """
    threads = torch.get_num_threads()

    def do(part: int) -> None:
        torch.set_num_threads(1)  # more in each product would wait for one another at every time step
        work(part * count // parts, (part + 1) * count // parts)

    if parts == 1:
        work(0, count)
        return
    try:
        with ThreadPoolExecutor(parts - 1) as pool:
            others = [pool.submit(do, part) for part in range(1, parts)]
            do(0)  # this thread too: it keeps its core, and the others are given the idle ones
            for other in others:
                other.result()
    finally:
        torch.set_num_threads(threads)  # a thread's own number is also what later threads begin with


_TANH = _Vanilla(walks.tanh_forward, walks.tanh_backward)
_RELU = _Vanilla(walks.relu_forward, walks.relu_backward)
_GRU, _LSTM = _Gru(), _Lstm()


def _cell(layer: nn.RNNBase) -> _Cell:
    if isinstance(layer, nn.LSTM):
        return _LSTM
    if isinstance(layer, nn.GRU):
        return _GRU
    return _RELU if layer.mode == "RNN_RELU" else _TANH


def _forward(
    ctx: Any,
    cell: _Cell,
    T: int,
    ids_TB: Tensor | None,
    values_MX: Tensor,
    state_PBH: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    B = state_PBH.shape[1]
    table_MG = _linear(values_MX.to(dtype), weight_ih.to(dtype), bias_ih.to(dtype))
    every_TB = torch.arange(T * B).view(T, B) if ids_TB is None else ids_TB
    recurrent = Weight(weight_hh.to(dtype), bias_hh.to(dtype), B // _threads_for(B))
    states_TBH, last_PBH, kept = cell.forward(every_TB, table_MG, state_PBH, recurrent)
    ctx.save_for_backward(ids_TB, values_MX, weight_ih, weight_hh, states_TBH, *kept)
    ctx.cell = cell
    return states_TBH[1:], last_PBH


def _backward(ctx: Any, d_outputs_TBH: Tensor, d_last_PBH: Tensor) -> tuple[Tensor | None, ...]:
    ids_TB, values_MX, weight_ih, weight_hh, states_TBH, *kept = ctx.saved_tensors
    dtype = states_TBH.dtype
    B = d_outputs_TBH.shape[1]
    recurrent = Weight(weight_hh.to(dtype).t().contiguous(), None, B // _threads_for(B))
    d_from_input_TBG, d_from_state_TBG, d_state_PBH = ctx.cell.backward(
        d_outputs_TBH.contiguous(), d_last_PBH.contiguous(), kept, recurrent
    )
    d_from_state_NG = d_from_state_TBG.flatten(0, 1)
    if ids_TB is None:
        d_table_MG = d_from_input_TBG.flatten(0, 1)
    else:
        d_table_MG = _sums_by_id(ids_TB, d_from_input_TBG, len(values_MX))
    d_bias_ih = _column_sums(d_table_MG)
    d_weight_ih = _product(d_table_MG.t(), values_MX.to(d_table_MG.dtype))
    # A GRU's input gives the blocks n, r, z; parameters have them as r, z, n.
    turn = 0 if d_from_input_TBG is d_from_state_TBG else len(weight_ih) // 3
    return (
        None,
        None,
        None,
        _product(d_table_MG, weight_ih.to(d_table_MG.dtype).roll(turn, 0)).to(values_MX.dtype),
        d_state_PBH,
        d_weight_ih.roll(-turn, 0) if turn else d_weight_ih,
        _product(d_from_state_NG.t(), states_TBH[:-1].flatten(0, 1)),
        d_bias_ih.roll(-turn) if turn else d_bias_ih,
        _column_sums(d_from_state_NG) if turn else d_bias_ih,
        None,
    )


class _Sequence(torch.autograd.Function):
    """A layer over the rows of `values_MX` that ids name, or over all of them, T times B, where there are no ids."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: _Cell,
        T: int,
        ids_TB: Tensor | None,
        values_MX: Tensor,
        state_PBH: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        # The sequence's type says what autocast said; torch's own products would be cast by it once more.
        with torch.autocast("cpu", enabled=False):
            return _forward(ctx, cell, T, ids_TB, values_MX, state_PBH, weight_ih, weight_hh, bias_ih, bias_hh, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return _backward(ctx, *gradients)
