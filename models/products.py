"""A weight that compiled loops multiply with, many times and without Python's lock.

A time step is a product of a tenth of a millisecond. Two threads that came back to Python after each of them would wait
for its lock, asleep, for as long as the product takes. So compiled code (models.walks) calls torch itself, by the C
interfaces that it keeps for compiled models (torch/csrc/inductor/aoti_torch/c) and extensions (torch/csrc/stable/c).

Shape suffixes: B rows, K what a row has, N what its product has.
"""

import ctypes
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
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
_WEIGHT, _BIAS, _TYPE, _WIDTH, _PACKED, _NAMES = range(len(_CALLED), len(_CALLED) + 6)
_ADDRESSES = [
    ctypes.cast(getattr(_TORCH, name), ctypes.c_void_p).value if hasattr(_TORCH, name) else 0 for name in _CALLED
]

# What stands where in `room`: the values' handle and other arguments, sizes, strides, the product's handle, its memory.
_STACK, _SIZES, _STRIDES, _PRODUCT, _MEMORY, ROOM = 0, 3, 5, 7, 8, 9

_PLAIN_PRODUCT = b"aten::linear"
_TEXT = np.frombuffer(b"\0".join((_PLAIN_PRODUCT, b"none", b"")), np.uint8)
_NONE_AT = len(_PLAIN_PRODUCT) + 1
_NO_OVERLOAD_AT = _NONE_AT + len(b"none")


SLICE_ROWS = 128
"""Of the identity that a matrix is read back with, at once."""


def array_of(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory as compiled code takes it: bfloat16 as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class Weight:
    """A matrix [N, K] that small matrices [B, K] are multiplied with: `values @ matrix.T + bias`.

    oneDNN's own layout is made once, for about `rows` rows; torch would make it anew at each product, and multiplies
    float32 by another library, half as fast on AMD's processors. The operations are those that torch's compiler uses.
    Where oneDNN does not multiply this type it is torch's `linear`. Raises RuntimeError when torch refuses.
    """

    def __init__(self, matrix_NK: Tensor, bias_N: Tensor | None, rows: int) -> None:
        packed = onednn_multiplies(matrix_NK.dtype)
        matrix_NK = matrix_NK.contiguous()
        self._memory = (None if packed else matrix_NK, bias_N)  # what the handles point into
        handles = [0, 0]
        weakref.finalize(self, _delete, handles)
        handles[0] = _handle(matrix_NK)
        if packed:
            handles[0] = _packed(handles[0], rows)
        if bias_N is not None:
            handles[1] = _handle(bias_N)
        self.inputs, self.dtype, self._rows = matrix_NK.shape[1], matrix_NK.dtype, rows
        own = (*handles, _TYPES[matrix_NK.dtype], len(matrix_NK), packed, _TEXT.ctypes.data)
        self.numbers = np.array([*_ADDRESSES, *own], np.int64)
        """What compiled code knows of this weight. As long as the weight lives, and no longer."""

    @property
    def bytes(self) -> int:
        """Of the matrix."""
        return int(self.numbers[_WIDTH]) * self.inputs * self.dtype.itemsize

    def parts(self, number: int) -> "list[Weight]":
        """Weights of the first, the second, ... of so many equal parts of the units, for one row at a time.

        A unit has a row in each of the matrix' square blocks (gates). The matrix is read back from its layout.
        """
        matrix_NK, bias_N = self._matrix(), self._memory[1]
        gates = len(matrix_NK) // self.inputs
        blocks = matrix_NK.view(gates, number, -1, self.inputs)
        biases = None if bias_N is None else bias_N.view(gates, number, -1)
        return [
            Weight(
                blocks[:, part].reshape(-1, self.inputs),
                None if biases is None else biases[:, part].reshape(-1),
                self._rows,
            )
            for part in range(number)
        ]

    def _matrix(self) -> Tensor:
        """The product with the identity, exact: of every sum one number is not 0."""
        if self._memory[0] is not None:
            return self._memory[0]
        unbiased, identity_KK = self.numbers.copy(), torch.eye(self.inputs, dtype=self.dtype)
        unbiased[_BIAS] = 0
        turned_KN = torch.empty(self.inputs, int(self.numbers[_WIDTH]), dtype=self.dtype)
        for first in range(0, self.inputs, SLICE_ROWS):
            here = slice(first, first + SLICE_ROWS)
            with telling_refusals():
                _copy_product(unbiased, array_of(identity_KK[here]), array_of(turned_KN[here]))
        return turned_KN.T.contiguous()

    def times(self, values_BK: Array) -> Array:
        """The product of values in the weight's type, a copy [B, N]."""
        products_BN = np.empty((len(values_BK), self.numbers[_WIDTH]), values_BK.dtype)
        with telling_refusals():
            _copy_product(self.numbers, values_BK, products_BN)
        return products_BN


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
def multiply(weight: Array, values_BK: Array, room: Array) -> Array:
    """values @ matrix.T + bias [B, N], in memory that is torch's until `release`.

    `weight` is a Weight's numbers, `room` a thread's own `ROOM` numbers; the values of a row are adjacent in memory.
    Raises RuntimeError, of which `refusal` tells more.
    """
    room[:] = 0
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
        failed = _by_onednn(weight, room) if weight[_PACKED] else _by_torch(weight, room)
    if not failed:
        failed = _call(weight[_DATA], (room[_PRODUCT], _address(room, _MEMORY)))
    if failed:
        raise RuntimeError("torch refused a product")
    return carray(at(room[_MEMORY], values_BK), (values_BK.shape[0], weight[_WIDTH]))


@compiled()
def _copy_product(weight: Array, values_BK: Array, products_BN: Array) -> None:
    room = np.empty(ROOM, np.int64)
    products_BN[:, :] = multiply(weight, values_BK, room)
    release(weight, room)


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


@compiled()
def release(weight: Array, room: Array) -> None:
    """Give back the memory of the last product."""
    _call(weight[_DELETE], (room[_PRODUCT],))
