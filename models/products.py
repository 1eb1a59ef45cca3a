"""A weight that compiled loops multiply with, many times and without Python's lock.

A time step is a product of a tenth of a millisecond. Two threads that came back to Python after each of them would wait
for its lock, asleep, for as long as the product takes. So compiled code (models.walks) calls into torch itself: the
kernel of oneDNN that `at::native::cpublas::brgemm` offers (ATen/native/CPUBlas.h), which writes where it is told and
takes a tenth of a microsecond beside the multiplying; where that cannot be, one of torch's operations
(models.torch_calls).

Shape suffixes: B rows, K what a row has, N what its product has.
"""

import os
import weakref
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.gates import Array
from models.machine_code import compiled
from models.torch_calls import (
    ADDRESSES,
    BIAS,
    BRGEMM,
    INPUTS,
    KERNEL,
    LINEAR,
    PACKED,
    PLAIN,
    RELEASE,
    TEXT,
    TYPE,
    TYPES,
    WAY,
    WEIGHT,
    WIDTH,
    address_of,
    at,
    by_operation,
    call,
    delete,
    handle,
    packed,
    telling_refusals,
)

_KERNELS = {
    torch.float32: "_ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb",
    torch.bfloat16: "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb",
}

_RELEASE = "_ZN2at6native7cpublas14brgemm_releaseEb"

_BFLOAT16 = TYPES[torch.bfloat16]
BLOCK = 64
"""Columns of a product that one call of the kernel makes: their weights, about 64 KB, stay in the cache for all rows.
One row of [2048, 512], bfloat16: 27 us, with 16 columns 60, with all at once 40; several rows do not mind."""
MOST_ROWS = 64
"""Of one call. Calls have powers of two: every number of rows is a kernel of its own, which torch makes and keeps."""


def array_of(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory as compiled code takes it: bfloat16 as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class Weight:
    """A matrix [N, K] that small matrices [B, K] of its type are multiplied with: `values @ matrix.T + bias`, float32.

    It is laid out anew once, for the kernel in blocks of columns; for oneDNN, which is asked where the kernel cannot be
    used, as it likes for about `rows` rows. Raises RuntimeError when torch refuses.
    """

    def __init__(self, matrix_NK: Tensor, bias_N: Tensor | None, rows: int) -> None:
        (width, self.inputs), self.dtype = matrix_NK.shape, matrix_NK.dtype
        self._rows, way = rows, _way(self.dtype)
        handles = [0, 0]
        self._memory: tuple[Tensor | None, Tensor | None]
        if way == KERNEL:
            blocks, bias_N = _blocks(matrix_NK), None if bias_N is None else bias_N.float()
            handles = [blocks.data_ptr(), 0 if bias_N is None else bias_N.data_ptr()]
            self._memory = blocks, bias_N  # what the addresses point into
        else:
            matrix_NK = matrix_NK.contiguous()
            self._memory = None if way == PACKED else matrix_NK, bias_N
            weakref.finalize(self, delete, handles)
            handles[0] = handle(matrix_NK)
            if way == PACKED:
                handles[0] = packed(handles[0], rows)
            if bias_N is not None:
                handles[1] = handle(bias_N)
        kernel = (address_of(_KERNELS[self.dtype]), address_of(_RELEASE) if _by_tiles(self.dtype) else 0)
        own = (*handles, TYPES[self.dtype], width, self.inputs, way, *kernel)
        self.numbers = np.array([*ADDRESSES, *own, TEXT.ctypes.data], np.int64)
        """What compiled code knows of this weight. As long as the weight lives, and no longer."""

    @property
    def bytes(self) -> int:
        """Of the matrix."""
        return int(self.numbers[WIDTH]) * self.inputs * self.dtype.itemsize

    def parts(self, number: int) -> "list[Weight]":
        """Weights of the first, the second, ... of so many equal parts of the units.

        A unit has a row in each of the matrix' square blocks (gates). The matrix is read back from its layout.
        """
        blocks = self._matrix().view(-1, number, self.inputs // number, self.inputs)
        bias_N = self._bias()
        biases = None if bias_N is None else bias_N.view(-1, number, self.inputs // number)
        return [
            Weight(
                blocks[:, part].reshape(-1, self.inputs),
                None if biases is None else biases[:, part].reshape(-1),
                self._rows,
            )
            for part in range(number)
        ]

    def _bias(self) -> Tensor | None:
        bias_N = self._memory[1]
        return None if bias_N is None else bias_N.to(self.dtype)

    def _matrix(self) -> Tensor:
        """Its product with the identity, exact: of every sum one number is not 0."""
        unbiased, width = self.numbers.copy(), int(self.numbers[WIDTH])
        unbiased[BIAS] = 0
        identity_KK = torch.eye(self.inputs, dtype=self.dtype)
        turned_KN = np.empty((self.inputs, width), np.float32)
        with telling_refusals():
            multiply(unbiased, array_of(identity_KK), turned_KN)
        return torch.from_numpy(turned_KN).to(self.dtype).t().contiguous()

    def times(self, values_BK: Array) -> Array:
        """The product of values in the weight's type, float32 [B, N]."""
        products_BN = np.empty((len(values_BK), self.numbers[WIDTH]), np.float32)
        with telling_refusals():
            multiply(self.numbers, values_BK, products_BN)
        return products_BN


def _blocks(matrix_NK: Tensor) -> Tensor:
    """[N / BLOCK, K, BLOCK], of bfloat16 [N / BLOCK, K / 2, BLOCK, 2]: the instruction adds two products at once. The
    last block has the columns that are left."""
    if matrix_NK.dtype == torch.bfloat16:
        matrix_NK = F.pad(matrix_NK, (0, matrix_NK.shape[1] % 2)).contiguous().view(torch.int32)
    whole = len(matrix_NK) - len(matrix_NK) % BLOCK
    blocks = matrix_NK[:whole].reshape(-1, BLOCK, matrix_NK.shape[1]).transpose(1, 2).reshape(-1)
    return blocks if whole == len(matrix_NK) else torch.cat((blocks, matrix_NK[whole:].t().reshape(-1)))


@cache
def _way(dtype: torch.dtype) -> int:
    if _kernel_multiplies(dtype):
        return KERNEL
    return PACKED if onednn_multiplies(dtype) else PLAIN


def _by_tiles(dtype: torch.dtype) -> bool:
    """Whether the kernel multiplies in the tiles of AMX."""
    return dtype == torch.bfloat16 and bool(torch.cpu._is_amx_tile_supported())


def _kernel_multiplies(dtype: torch.dtype) -> bool:
    """Whether the kernel may be called: what it cannot do it tells by an exception of C++, which would end us."""
    limited = bool({"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"} & set(os.environ))
    limited = limited or not torch.__version__.startswith("2.13.")  # the name says what the compiler made of it
    if limited or not torch.backends.mkldnn.is_available() or not address_of(_KERNELS[dtype]):
        return False
    if dtype == torch.bfloat16:
        if _by_tiles(dtype):
            return bool(address_of(_RELEASE))
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.cpu._is_avx2_supported())


def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN, with a weight in its own layout, is the way to multiply numbers of this type."""
    if not (torch.backends.mkldnn.is_available() and ADDRESSES[LINEAR]):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@compiled()
def width(weight: Array) -> int:
    """Numbers that a row's product has."""
    return int(weight[WIDTH])


@compiled()
def multiply(weight: Array, values_BK: Array, products_BN: Array) -> None:
    """products = values @ matrix.T + bias.

    `weight` is a Weight's numbers; numbers of one row are adjacent in memory, of values as of products. Raises
    ValueError for rows of another length, RuntimeError, of which `refusal` tells more, when torch refuses.
    """
    if values_BK.shape[1] != weight[INPUTS] or products_BN.shape != (values_BK.shape[0], weight[WIDTH]):
        raise ValueError("rows of another length than the weight's")
    if (values_BK.itemsize == 2) != (weight[TYPE] == _BFLOAT16):
        raise ValueError("values of another type than the weight's")
    if weight[WAY] == KERNEL and weight[RELEASE] and values_BK.shape[1] % 2:
        # Tiles take pairs of numbers: an odd number of them is an illegal instruction (torch 2.13).
        even_BK = np.zeros((values_BK.shape[0], values_BK.shape[1] + 1), values_BK.dtype)
        even_BK[:, :-1] = values_BK
        _by_kernel(weight, even_BK, products_BN)
    elif weight[WAY] == KERNEL:
        _by_kernel(weight, values_BK, products_BN)
    else:
        by_operation(weight, values_BK, products_BN)


@compiled()
def _by_kernel(weight: Array, values_BK: Array, products_BN: Array) -> None:
    (B, K), N, size = values_BK.shape, products_BN.shape[1], values_BK.itemsize
    pairs = size == 2
    if weight[BIAS]:
        bias_N = carray(at(weight[BIAS], products_BN), (N,))
        for row in range(B):
            for n in range(N):
                products_BN[row, n] = bias_N[n]
    column_bytes = size * (K + K % 2 if pairs else K)
    for first in range(0, N, BLOCK):
        columns, row, rows = min(BLOCK, N - first), 0, MOST_ROWS
        while row < B:
            while rows > B - row:
                rows //= 2
            call(
                weight[BRGEMM],
                (
                    np.int64(rows),
                    np.int64(columns),
                    np.int64(K),
                    np.int64(values_BK.strides[0] // size),
                    np.int64(columns),
                    np.int64(products_BN.strides[0] // 4),
                    np.int32(weight[BIAS] != 0),  # added to what is there
                    np.int64(values_BK.ctypes.data + row * values_BK.strides[0]),
                    np.int64(weight[WEIGHT] + first * column_bytes),
                    np.int64(products_BN.ctypes.data + row * products_BN.strides[0] + 4 * first),
                    np.int32(pairs),
                ),
            )
            row += rows
    if weight[RELEASE]:  # the tiles, in the shape of these products, which other code of oneDNN's may find in its way
        call(weight[RELEASE], (np.int32(1),))
