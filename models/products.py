"""A weight that compiled loops multiply with, many times and without Python's lock.

A time step is a product of a tenth of a millisecond. Two threads that came back to Python after each of them would wait
for its lock, asleep, for as long as the product takes. So compiled code (models.walks) calls into torch itself: the
kernel of oneDNN that `at::native::cpublas::brgemm` offers (ATen/native/CPUBlas.h), which writes where it is told and
takes a tenth of a microsecond beside the multiplying; where that cannot be, one of torch's operations, which take ten,
by the C interfaces that it keeps for compiled models (torch/csrc/inductor/aoti_torch/c) and extensions
(torch/csrc/stable/c).

Shape suffixes: B rows, K what a row has, N what its product has.
"""

import ctypes
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.arithmetic import load
from models.gates import Array
from models.machine_code import compiled

_TORCH = ctypes.CDLL(
    str(Path(torch.__file__).parent / "lib" / ("libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"))
)
_TORCH.torch_exception_get_what_without_backtrace.restype = ctypes.c_char_p
_VERSION = (2 << 56) | (13 << 48)
"""Of the interface for extensions that this is written for: torch 2.13."""
_TYPES = {torch.float32: _TORCH.aoti_torch_dtype_float32(), torch.bfloat16: _TORCH.aoti_torch_dtype_bfloat16()}
_CPU: int = _TORCH.aoti_torch_device_type_cpu()
_KERNELS = {
    torch.float32: "_ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb",
    torch.bfloat16: "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb",
}

BLOCK = 64
"""Columns of a product that one call of the kernel makes: their weights, about 64 KB, stay in the cache for all rows.
One row of [2048, 512], bfloat16: 27 us, with 16 columns 60, with all at once 40; several rows do not mind."""
MOST_ROWS = 64
"""Of one call. Calls have powers of two: every number of rows is a kernel of its own, which torch makes and keeps."""
_KERNEL, _PACKED, _PLAIN = range(3)
"""Ways to multiply: the kernel; oneDNN with a weight in its layout; torch's `linear`."""

# What stands where in the numbers of a weight: addresses of torch's functions, then the weight's own.
_CALLED = (
    "aoti_torch_create_tensor_from_blob",
    "aoti_torch_delete_tensor_object",
    "aoti_torch_get_data_ptr",
    "aoti_torch_cpu__linear_pointwise",
    "aoti_torch_new_tensor_handle",
    "torch_new_stable_ivalue",
    "torch_call_dispatcher",
)
_FROM_BLOB, _DELETE, _DATA, _LINEAR, _SHARE, _NEW_VALUE, _CALL = range(len(_CALLED))
_WEIGHT, _BIAS, _TYPE, _WIDTH, _INPUTS, _WAY, _BRGEMM, _NAMES = range(len(_CALLED), len(_CALLED) + 8)


def _address_of(name: str) -> int:
    return ctypes.cast(getattr(_TORCH, name), ctypes.c_void_p).value or 0 if hasattr(_TORCH, name) else 0


_ADDRESSES = [_address_of(name) for name in _CALLED]

# What stands where in a product's room: the values' handle and other arguments, sizes, strides, the product's handle,
# its memory.
_STACK, _SIZES, _STRIDES, _PRODUCT, _MEMORY, _ROOM = 0, 3, 5, 7, 8, 9

_PLAIN_PRODUCT = b"aten::linear"
_TEXT = np.frombuffer(b"\0".join((_PLAIN_PRODUCT, b"none", b"")), np.uint8)
_NONE_AT = len(_PLAIN_PRODUCT) + 1
_NO_OVERLOAD_AT = _NONE_AT + len(b"none")


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
        if way == _KERNEL:
            blocks, bias_N = _blocks(matrix_NK), None if bias_N is None else bias_N.float()
            handles = [blocks.data_ptr(), 0 if bias_N is None else bias_N.data_ptr()]
            self._memory = blocks, bias_N  # what the addresses point into
        else:
            matrix_NK = matrix_NK.contiguous()
            self._memory = None if way == _PACKED else matrix_NK, bias_N
            weakref.finalize(self, _delete, handles)
            handles[0] = _handle(matrix_NK)
            if way == _PACKED:
                handles[0] = _packed(handles[0], rows)
            if bias_N is not None:
                handles[1] = _handle(bias_N)
        own = (*handles, _TYPES[self.dtype], width, self.inputs, way, _address_of(_KERNELS[self.dtype]))
        self.numbers = np.array([*_ADDRESSES, *own, _TEXT.ctypes.data], np.int64)
        """What compiled code knows of this weight. As long as the weight lives, and no longer."""

    @property
    def bytes(self) -> int:
        """Of the matrix."""
        return int(self.numbers[_WIDTH]) * self.inputs * self.dtype.itemsize

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
        unbiased, width = self.numbers.copy(), int(self.numbers[_WIDTH])
        unbiased[_BIAS] = 0
        identity_KK = torch.eye(self.inputs, dtype=self.dtype)
        turned_KN = np.empty((self.inputs, width), np.float32)
        with telling_refusals():
            multiply(unbiased, array_of(identity_KK), turned_KN)
        return torch.from_numpy(turned_KN).to(self.dtype).t().contiguous()

    def times(self, values_BK: Array) -> Array:
        """The product of values in the weight's type, float32 [B, N]."""
        products_BN = np.empty((len(values_BK), self.numbers[_WIDTH]), np.float32)
        with telling_refusals():
            multiply(self.numbers, values_BK, products_BN)
        return products_BN


def _blocks(matrix_NK: Tensor) -> Tensor:
    """[N / BLOCK, K, BLOCK], of bfloat16 [N / BLOCK, K / 2, BLOCK, 2]: the instruction adds two products at once. The
    last block has the columns that are left."""
    if matrix_NK.dtype == torch.bfloat16:
        matrix_NK = F.pad(matrix_NK, (0, matrix_NK.shape[1] % 2)).contiguous().view(torch.int32)
    whole = len(matrix_NK) - len(matrix_NK) % BLOCK
    blocks = matrix_NK[:whole].reshape(-1, BLOCK, matrix_NK.shape[1]).transpose(1, 2)
    return torch.cat((blocks.reshape(-1), matrix_NK[whole:].t().reshape(-1)))


@cache
def _way(dtype: torch.dtype) -> int:
    if _kernel_multiplies(dtype):
        return _KERNEL
    return _PACKED if onednn_multiplies(dtype) else _PLAIN


def _kernel_multiplies(dtype: torch.dtype) -> bool:
    """Whether the kernel may be called: what it cannot do it tells by an exception of C++, which would end the process.

    Not with AMX, for bfloat16: which sizes it then takes was never seen.
    """
    limited = {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"} & set(os.environ)
    if limited or not torch.backends.mkldnn.is_available() or not _address_of(_KERNELS[dtype]):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported())
    return bool(torch.cpu._is_avx2_supported())


def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN, with a weight in its own layout, is the way to multiply numbers of this type."""
    if not (torch.backends.mkldnn.is_available() and _ADDRESSES[_LINEAR]):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def refusal() -> RuntimeError:
    """What torch said, in this thread, when it last refused something."""
    told = _TORCH.torch_exception_get_what_without_backtrace() or b"no reason given"
    return RuntimeError(f"torch refused a product: {told.decode(errors='replace')}")


@contextmanager
def telling_refusals() -> Iterator[None]:
    """Compiled code raises what it knew when it was compiled, no more: here its RuntimeError says why torch refused."""
    try:
        yield
    except RuntimeError as error:
        raise refusal() from error


def _checked(failed: int) -> None:
    if failed:
        raise refusal()


def _handle(tensor: Tensor) -> int:
    """torch's handle of contiguous memory that stays the tensor's."""
    assert tensor.is_contiguous()
    handle = ctypes.c_int64()
    shape, strides = ((ctypes.c_int64 * tensor.ndim)(*numbers) for numbers in (tensor.shape, tensor.stride()))
    _checked(
        _TORCH.aoti_torch_create_tensor_from_blob(
            ctypes.c_void_p(tensor.data_ptr()),
            ctypes.c_int64(tensor.ndim),
            shape,
            strides,
            ctypes.c_int64(0),
            ctypes.c_int32(_TYPES[tensor.dtype]),
            ctypes.c_int32(_CPU),
            ctypes.c_int32(0),
            ctypes.byref(handle),
        )
    )
    return handle.value


def _packed(matrix: int, rows: int) -> int:
    """The handle of a matrix in oneDNN's layout; that of the matrix is taken over."""
    value = ctypes.POINTER(ctypes.c_int64)()
    _checked(_TORCH.torch_new_stable_ivalue(ctypes.byref(value)))
    value[0] = rows
    stack = (ctypes.c_int64 * 2)(matrix, ctypes.addressof(value.contents))
    name = b"mkldnn::_reorder_linear_weight"
    _checked(_TORCH.torch_call_dispatcher(name, b"", stack, ctypes.c_uint64(_VERSION)))
    return stack[0]


def _delete(handles: list[int]) -> None:
    for handle in handles:
        if handle:
            _TORCH.aoti_torch_delete_tensor_object(ctypes.c_void_p(handle))


@intrinsic
def _call(_context: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at an address with a tuple of numbers. Its result is 0 where all went well."""

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        values = cgutils.unpack_tuple(builder, given[1])
        function = ir.FunctionType(ir.IntType(32), [value.type for value in values])
        return builder.call(builder.inttoptr(given[0], function.as_pointer()), values)

    return types.int32(address, arguments), generate


@intrinsic
def at(_context: Any, address: Any, like: Any) -> Any:
    """An address as a pointer to numbers like those of an array."""
    pointer = types.CPointer(like.dtype)

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(pointer))

    return pointer(address, like), generate


@compiled()
def _address(numbers: Array, index: int) -> int:
    return np.int64(numbers.ctypes.data) + np.int64(8) * np.int64(index)


@compiled()
def width(weight: Array) -> int:
    """Numbers that a row's product has."""
    return int(weight[_WIDTH])


@compiled()
def multiply(weight: Array, values_BK: Array, products_BN: Array) -> None:
    """products = values @ matrix.T + bias.

    `weight` is a Weight's numbers; numbers of one row are adjacent in memory, of values as of products. Raises
    ValueError for rows of another length, RuntimeError, of which `refusal` tells more, when torch refuses.
    """
    if values_BK.shape[1] != weight[_INPUTS] or products_BN.shape != (values_BK.shape[0], weight[_WIDTH]):
        raise ValueError("rows of another length than the weight's")
    if weight[_WAY] == _KERNEL:
        _by_kernel(weight, values_BK, products_BN)
    else:
        _by_operation(weight, values_BK, products_BN)


@compiled()
def _by_kernel(weight: Array, values_BK: Array, products_BN: Array) -> None:
    (B, K), N, size = values_BK.shape, products_BN.shape[1], values_BK.itemsize
    pairs = size == 2
    if weight[_BIAS]:
        bias_N = carray(at(weight[_BIAS], products_BN), (N,))
        for row in range(B):
            for n in range(N):
                products_BN[row, n] = bias_N[n]
    column_bytes = size * (K + K % 2 if pairs else K)
    for first in range(0, N, BLOCK):
        columns, row, rows = min(BLOCK, N - first), 0, MOST_ROWS
        while row < B:
            while rows > B - row:
                rows //= 2
            _call(
                weight[_BRGEMM],
                (
                    np.int64(rows),
                    np.int64(columns),
                    np.int64(K),
                    np.int64(values_BK.strides[0] // size),
                    np.int64(columns),
                    np.int64(products_BN.strides[0] // 4),
                    np.int32(weight[_BIAS] != 0),  # added to what is there
                    np.int64(values_BK.ctypes.data + row * values_BK.strides[0]),
                    np.int64(weight[_WEIGHT] + first * column_bytes),
                    np.int64(products_BN.ctypes.data + row * products_BN.strides[0] + 4 * first),
                    np.int32(pairs),
                ),
            )
            row += rows


@compiled()
def _by_operation(weight: Array, values_BK: Array, products_BN: Array) -> None:
    room = np.zeros(_ROOM, np.int64)
    room[_SIZES], room[_SIZES + 1] = values_BK.shape
    room[_STRIDES], room[_STRIDES + 1] = values_BK.strides[0] // values_BK.itemsize, 1
    failed = _call(
        weight[_FROM_BLOB],
        (
            np.int64(values_BK.ctypes.data),
            np.int64(2),
            _address(room, _SIZES),
            _address(room, _STRIDES),
            np.int64(0),
            np.int32(weight[_TYPE]),
            np.int32(_CPU),
            np.int32(0),
            _address(room, _STACK),
        ),
    )
    if not failed:
        failed = _by_onednn(weight, room) if weight[_WAY] == _PACKED else _by_torch(weight, room)
    if not failed:
        failed = _call(weight[_DATA], (room[_PRODUCT], _address(room, _MEMORY)))
    if failed:
        raise RuntimeError("torch refused a product")
    given_BN = carray(at(room[_MEMORY], values_BK), products_BN.shape)
    for row in range(products_BN.shape[0]):
        for n in range(products_BN.shape[1]):
            products_BN[row, n] = load(given_BN[row, n])
    _call(weight[_DELETE], (room[_PRODUCT],))


@compiled()
def _by_onednn(weight: Array, room: Array) -> int:
    """Not by torch's dispatcher, which loses the text of a text argument, 50 bytes, at each call (2.13)."""
    bias = _address(weight, _BIAS) if weight[_BIAS] else np.int64(0)
    none, nothing = weight[_NAMES] + _NONE_AT, np.int64(0)
    failed = _call(
        weight[_LINEAR],
        (room[_STACK], weight[_WEIGHT], bias, none, nothing, nothing, nothing, _address(room, _PRODUCT)),
    )
    _call(weight[_DELETE], (room[_STACK],))
    return failed


@compiled()
def _by_torch(weight: Array, room: Array) -> int:
    """The dispatcher takes its arguments over: the values' handle, a new one of the weight, of the bias."""
    failed = _call(weight[_SHARE], (weight[_WEIGHT], _address(room, _STACK + 1)))
    if not failed and weight[_BIAS]:
        failed = _call(weight[_NEW_VALUE], (_address(room, _STACK + 2),))
        if not failed:
            failed = _call(weight[_SHARE], (weight[_BIAS], room[_STACK + 2]))
    if not failed:
        no_overload = weight[_NAMES] + _NO_OVERLOAD_AT
        failed = _call(weight[_CALL], (weight[_NAMES], no_overload, _address(room, _STACK), np.int64(_VERSION)))
        room[_PRODUCT] = room[_STACK]
    return failed
