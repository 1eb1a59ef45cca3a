"""A recurrent layer over a whole sequence on the CPU, with backpropagation through time written by hand.

The same functions as `nn.RNN`, `nn.GRU` and `nn.LSTM`, which are their reference. What is fast about it: the gates of a
time step are one pass over the memory (models.gates), the recurrent weights are laid out once for oneDNN and then
multiplied many times (models.products), each thread goes through time with rows of its own in one compiled call
(models.walks), and the weights' gradient is one product over all time steps.

Shape suffixes: T time steps, B rows, N = T B, V vocabulary, M rows of a table, X input, H hidden, P parts of a layer's
state, G all gates' sums, K any width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.cells import Cell, cell_of, sums_by_id, threads_for
from models.products import Weight, onednn_multiplies

ONEDNN = torch.ops.mkldnn


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


def linear(values: Tensor, weight_GK: Tensor, bias_G: Tensor) -> Tensor:
    """`F.linear` of values [..., K]. Float32, which torch gives to MKL, goes to oneDNN where that is faster."""
    if torch.is_autocast_enabled("cpu") or values.device.type != "cpu" or not _onednn_is_faster(values.dtype):
        return F.linear(values, weight_GK, bias_G)
    sums_NG = _Linear.apply(values.flatten(0, -2), weight_GK, bias_G)  # type: ignore[no-untyped-call]
    return sums_NG.unflatten(0, values.shape[:-1])  # type: ignore[no-any-return]


def _run(
    layer: nn.RNNBase, ids_TB: Tensor | None, values_MX: Tensor, state_PBH: Tensor, T: int
) -> tuple[Tensor, Tensor]:
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    outputs_TBH, last_PBH = _Sequence.apply(cell_of(layer), T, ids_TB, values_MX, state_PBH, *weights, dtype)  # type: ignore[no-untyped-call]
    return outputs_TBH.transpose(0, 1), last_PBH


def _sums(values_NK: Tensor, matrix_GK: Tensor, bias_G: Tensor) -> Tensor:
    """values @ matrix.T + bias, of large matrices: by oneDNN, which is faster than MKL on AMD's processors."""
    if onednn_multiplies(values_NK.dtype):
        return ONEDNN._linear_pointwise(values_NK, matrix_GK, bias_G, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(values_NK, matrix_GK, bias_G)


def _product(a_MN: Tensor, b_NK: Tensor) -> Tensor:
    """a @ b in float32, of large matrices, each used once."""
    if _onednn_is_faster(a_MN.dtype):
        return ONEDNN._linear_pointwise(a_MN, _tight(b_NK).t(), None, "none", [], "")  # type: ignore[no-any-return]
    return (a_MN @ b_NK).float()


def _tight(a: Tensor) -> Tensor:
    """The matrix without gaps between its rows or columns, as a GRU's gradients have them.

    For a second factor with gaps oneDNN has nothing but its reference loop ([512, 1024] x [1024, 1536]: 45 s, and 18 ms
    with the copy); with a first one whose columns have some it takes twice as long.
    """
    return a if a.is_contiguous() or a.t().is_contiguous() else a.contiguous()


def _weight_gradient(d_sums_NG: Tensor, values_NK: Tensor) -> Tensor:
    """d_sums.T @ values in float32: of a weight [G, K] whose products with values the sums are.

    oneDNN takes a fifth longer when it is the larger matrix that has to be turned.
    """
    if not _onednn_is_faster(d_sums_NG.dtype):
        return _product(d_sums_NG.t(), values_NK)
    d_sums_NG = _tight(d_sums_NG)
    if d_sums_NG.shape[1] > values_NK.shape[1]:
        return _product(values_NK.t(), d_sums_NG).t().contiguous()
    return _product(d_sums_NG.t(), values_NK)


def _onednn_is_faster(dtype: torch.dtype) -> bool:
    """Where it has AVX-512 (MKL is half as fast there on AMD's processors); with AVX2 it takes twice as long as MKL for
    a transposed matrix."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return dtype == torch.float32 and wide and onednn_multiplies(torch.float32)


def _column_sums(a_NG: Tensor) -> Tensor:
    """The sum over N in float32 [G]: a product, since torch's own sum is slower over strided rows.

    Never by oneDNN, which takes 240 ms with AVX2 where MKL takes 2 (N 4,096, G 1,536).
    """
    return (torch.ones(1, len(a_NG), dtype=a_NG.dtype) @ a_NG)[0].float()


def _forward(
    ctx: Any,
    cell: Cell,
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
    table_MG = _sums(values_MX.to(dtype), weight_ih.to(dtype), bias_ih.to(dtype))
    every_TB = torch.arange(T * B).view(T, B) if ids_TB is None else ids_TB
    recurrent = Weight(weight_hh.to(dtype), bias_hh.to(dtype), B // threads_for(B))
    states_TBH, last_PBH, kept = cell.forward(every_TB, table_MG, state_PBH, recurrent)
    ctx.save_for_backward(ids_TB, values_MX, weight_ih, weight_hh, states_TBH, *kept)
    ctx.cell = cell
    return states_TBH[1:], last_PBH


def _backward(ctx: Any, d_outputs_TBH: Tensor, d_last_PBH: Tensor) -> tuple[Tensor | None, ...]:
    ids_TB, values_MX, weight_ih, weight_hh, states_TBH, *kept = ctx.saved_tensors
    dtype = states_TBH.dtype
    B = d_outputs_TBH.shape[1]
    recurrent = Weight(weight_hh.to(dtype).t(), None, B // threads_for(B))
    d_from_input_TBG, d_from_state_TBG, d_state_PBH = ctx.cell.backward(
        d_outputs_TBH.contiguous(), d_last_PBH.contiguous(), kept, recurrent
    )
    d_from_state_NG = d_from_state_TBG.flatten(0, 1)
    if ids_TB is None:
        d_table_MG = d_from_input_TBG.flatten(0, 1)
    else:
        d_table_MG = sums_by_id(ids_TB, d_from_input_TBG, len(values_MX))
    d_bias_ih = _column_sums(d_table_MG)
    d_weight_ih = _weight_gradient(d_table_MG, values_MX.to(d_table_MG.dtype))
    # A GRU's input gives the blocks n, r, z; parameters have them as r, z, n.
    turn = 0 if d_from_input_TBG is d_from_state_TBG else len(weight_ih) // 3
    return (
        None,
        None,
        None,
        _product(d_table_MG, weight_ih.to(d_table_MG.dtype).roll(turn, 0)).to(values_MX.dtype),
        d_state_PBH,
        d_weight_ih.roll(-turn, 0) if turn else d_weight_ih,
        _weight_gradient(d_from_state_NG, states_TBH[:-1].flatten(0, 1)),
        d_bias_ih.roll(-turn) if turn else d_bias_ih,
        _column_sums(d_from_state_NG) if turn else d_bias_ih,
        None,
    )


class _Sequence(torch.autograd.Function):
    """A layer over the rows of `values_MX` that ids name, or over all of them, T times B, where there are no ids."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        # The sequence's type says what autocast said; torch's own products would be cast by it once more.
        with torch.autocast("cpu", enabled=False):
            return _forward(ctx, *arguments)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return _backward(ctx, *gradients)


class _Linear(torch.autograd.Function):
    """values [N, K] @ weight [G, K] .T + bias in float32, each product by oneDNN."""

    @staticmethod
    def forward(ctx: Any, values_NK: Tensor, weight_GK: Tensor, bias_G: Tensor) -> Tensor:
        ctx.save_for_backward(values_NK, weight_GK)
        return _sums(values_NK, weight_GK, bias_G)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_sums_NG: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values_NK, weight_GK = ctx.saved_tensors
        return _product(d_sums_NG, weight_GK), _weight_gradient(d_sums_NG, values_NK), _column_sums(d_sums_NG)
