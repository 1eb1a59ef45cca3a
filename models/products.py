"""A weight that compiled loops multiply with, many times and without Python's lock.

A time step is a product of a tenth of a millisecond. Two threads that came back to Python after each of them would wait
for its lock, asleep, for as long as the product takes. So compiled code (models.walks) calls torch itself, by its
stable C interface (torch/csrc/stable/c/shim.h), which later versions keep for two years.

Shape suffixes: B rows, K what a row has, N what its product has.
"""

import ctypes
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from models.gates import Array

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "cache": True, "nogil": True}

_FILE = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
_TORCH = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / _FILE))
_TORCH.torch_exception_get_what_without_backtrace.restype = ctypes.c_char_p
_MAJOR, _MINOR = (int(part) for part in torch.__version__.split(".")[:2])
_VERSION = (_MAJOR << 56) | (_MINOR << 48)
"""Which version of the interface this is written for: TORCH_ABI_VERSION."""
_TYPES = {torch.float32: _TORCH.aoti_torch_dtype_float32(), torch.bfloat16: _TORCH.aoti_torch_dtype_bfloat16()}
_CPU: int = _TORCH.aoti_torch_device_type_cpu()

# What stands where in the numbers of a weight: addresses of torch's functions, then the weight's own.
_CALLED = (
    "torch_call_dispatcher",
    "aoti_torch_create_tensor_from_blob",
    "aoti_torch_new_tensor_handle",
    "aoti_torch_delete_tensor_object",
    "aoti_torch_get_data_ptr",
    "torch_new_stable_ivalue",
    "torch_new_string_handle",
    "torch_new_list_reserve_size",
)
_CALL, _FROM_BLOB, _SHARE, _DELETE, _DATA, _NEW_VALUE, _NEW_STRING, _NEW_LIST = range(len(_CALLED))
_WEIGHT, _BIAS, _TYPE, _WIDTH, _PACKED, _NAMES = range(len(_CALLED), len(_CALLED) + 6)
_ADDRESSES = [ctypes.cast(getattr(_TORCH, name), ctypes.c_void_p).value for name in _CALLED]

# What stands where in `room`: arguments and results of a call, sizes, strides, a new handle.
_STACK, _SIZES, _STRIDES, _NEW, ROOM = 0, 6, 8, 10, 11

_REORDER, _PACKED_PRODUCT, _PLAIN_PRODUCT = (
    b"mkldnn::_reorder_linear_weight",
    b"mkldnn::_linear_pointwise",
    b"aten::linear",
)
_TEXT = np.frombuffer(b"\0".join((_REORDER, _PACKED_PRODUCT, _PLAIN_PRODUCT, b"none", b"")), np.uint8)
_PACKED_AT = len(_REORDER) + 1
_PLAIN_AT = _PACKED_AT + len(_PACKED_PRODUCT) + 1
_NONE_AT = _PLAIN_AT + len(_PLAIN_PRODUCT) + 1
_NO_OVERLOAD_AT = _NONE_AT + len(b"none")


class Weight:
    """A matrix [N, K] that small matrices [B, K] are multiplied with: `values @ matrix.T + bias`.

    oneDNN's own layout is made once, for about `rows` rows; torch would make it anew at each product, and multiplies
    float32 by another library, half as fast on AMD's processors. The operations are those that torch's compiler uses.
    Where oneDNN does not multiply this type it is torch's `linear`. Raises RuntimeError when torch refuses.
    """

    def __init__(self, matrix_NK: Tensor, bias_N: Tensor | None, rows: int) -> None:
        packed = onednn_multiplies(matrix_NK.dtype)
        self._memory = (matrix_NK := matrix_NK.contiguous(), bias_N)  # what the handles point into
        handles = [_handle(matrix_NK), 0 if bias_N is None else _handle(bias_N)]
        if packed:
            handles[0] = _packed(handles[0], rows)
        own = (*handles, _TYPES[matrix_NK.dtype], len(matrix_NK), packed, _TEXT.ctypes.data)
        self.numbers = np.array([*_ADDRESSES, *own], np.int64)
        """What compiled code knows of this weight. As long as the weight lives, and no longer."""
        weakref.finalize(self, _delete, handles)


def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN, with a weight in its own layout, is the way to multiply numbers of this type."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _checked(failed: int) -> None:
    if failed:
        told = _TORCH.torch_exception_get_what_without_backtrace() or b"no reason given"
        raise RuntimeError(f"torch refused a product: {told.decode(errors='replace')}")


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
    _checked(_TORCH.torch_call_dispatcher(_REORDER, b"", stack, ctypes.c_uint64(_VERSION)))
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
def _at(_context: Any, address: Any, like: Any) -> Any:
    """An address as a pointer to numbers like those of an array."""
    pointer = types.CPointer(like.dtype)

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(pointer))

    return pointer(address, like), generate


@njit(**_OPTIONS)
def multiply(weight: Array, values_BK: Array, room: Array) -> Array:
    """values @ matrix.T + bias [B, N], in memory that is torch's until `release`.

    `weight` is a Weight's numbers, `room` a thread's own `ROOM` numbers; the values of a row are adjacent in memory.
    """
    here, text, size = np.int64(room.ctypes.data), weight[_NAMES], np.int64(8)
    room[_SIZES], room[_SIZES + 1] = values_BK.shape
    room[_STRIDES], room[_STRIDES + 1] = values_BK.strides[0] // values_BK.itemsize, 1
    failed = _call(
        weight[_FROM_BLOB],
        (
            np.int64(values_BK.ctypes.data),
            np.int64(2),
            here + _SIZES * size,
            here + _STRIDES * size,
            np.int64(0),
            np.int32(weight[_TYPE]),
            np.int32(_CPU),
            np.int32(0),
            here + _STACK * size,
        ),
    )
    failed |= _call(weight[_SHARE], (weight[_WEIGHT], here + (_STACK + 1) * size))
    room[_STACK + 2] = 0
    if weight[_BIAS]:
        failed |= _call(weight[_NEW_VALUE], (here + (_STACK + 2) * size,))
        failed |= _call(weight[_SHARE], (weight[_BIAS], room[_STACK + 2]))
    name = text + _PLAIN_AT
    if weight[_PACKED]:
        name = text + _PACKED_AT
        failed |= _call(weight[_NEW_STRING], (text + _NONE_AT, np.int64(4), here + (_STACK + 3) * size))
        failed |= _call(weight[_NEW_LIST], (np.int64(0), here + (_STACK + 4) * size))
        room[_STACK + 5] = 0
    failed |= _call(weight[_CALL], (name, text + _NO_OVERLOAD_AT, here + _STACK * size, np.int64(_VERSION)))
    if not failed:
        failed = _call(weight[_DATA], (room[_STACK], here + _NEW * size))
    if failed:
        raise RuntimeError("torch refused a product")
    return carray(_at(room[_NEW], values_BK), (values_BK.shape[0], weight[_WIDTH]))


@njit(**_OPTIONS)
def release(weight: Array, room: Array) -> None:
    """Give back the memory of the last product."""
    _call(weight[_DELETE], (room[_STACK],))
