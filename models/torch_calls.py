"""torch's own functions for compiled code: how they are called, and products by its operations.

By the C interfaces that torch keeps for compiled models (torch/csrc/inductor/aoti_torch/c) and extensions
(torch/csrc/stable/c). A product so takes ten microseconds beside the multiplying: models.products decides, and has a
faster way.

Shape suffixes as in models.products.
"""

import ctypes
import sys
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
from torch import Tensor

from models.arithmetic import load
from models.gates import Array
from models.machine_code import compiled

TORCH = ctypes.CDLL(
    str(Path(torch.__file__).parent / "lib" / ("libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"))
)
TORCH.torch_exception_get_what_without_backtrace.restype = ctypes.c_char_p
_VERSION = (2 << 56) | (13 << 48)
"""Of the interface for extensions that this is written for: torch 2.13."""
TYPES = {torch.float32: TORCH.aoti_torch_dtype_float32(), torch.bfloat16: TORCH.aoti_torch_dtype_bfloat16()}
_CPU: int = TORCH.aoti_torch_device_type_cpu()
KERNEL, PACKED, PLAIN = range(3)
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
_FROM_BLOB, _DELETE, _DATA, LINEAR, _SHARE, _NEW_VALUE, _CALL = range(len(_CALLED))
WEIGHT, BIAS, TYPE, WIDTH, INPUTS, WAY, BRGEMM, RELEASE, _NAMES = range(len(_CALLED), len(_CALLED) + 9)


def address_of(name: str) -> int:
    return ctypes.cast(getattr(TORCH, name), ctypes.c_void_p).value or 0 if hasattr(TORCH, name) else 0


ADDRESSES = [address_of(name) for name in _CALLED]

# What stands where in a product's room: the values' handle and other arguments, sizes, strides, the product's handle,
# its memory.
_STACK, _SIZES, _STRIDES, _PRODUCT, _MEMORY, _ROOM = 0, 3, 5, 7, 8, 9

_PLAIN_PRODUCT = b"aten::linear"
TEXT = np.frombuffer(b"\0".join((_PLAIN_PRODUCT, b"none", b"")), np.uint8)
_NONE_AT = len(_PLAIN_PRODUCT) + 1
_NO_OVERLOAD_AT = _NONE_AT + len(b"none")


def refusal() -> RuntimeError:
    """What torch said, in this thread, when it last refused something."""
    told = TORCH.torch_exception_get_what_without_backtrace() or b"no reason given"
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


def handle(tensor: Tensor) -> int:
    """torch's handle of contiguous memory that stays the tensor's."""
    assert tensor.is_contiguous()
    handle = ctypes.c_int64()
    shape, strides = ((ctypes.c_int64 * tensor.ndim)(*numbers) for numbers in (tensor.shape, tensor.stride()))
    _checked(
        TORCH.aoti_torch_create_tensor_from_blob(
            ctypes.c_void_p(tensor.data_ptr()),
            ctypes.c_int64(tensor.ndim),
            shape,
            strides,
            ctypes.c_int64(0),
            ctypes.c_int32(TYPES[tensor.dtype]),
            ctypes.c_int32(_CPU),
            ctypes.c_int32(0),
            ctypes.byref(handle),
        )
    )
    return handle.value


def packed(matrix: int, rows: int) -> int:
    """The handle of a matrix in oneDNN's layout; that of the matrix is taken over."""
    value = ctypes.POINTER(ctypes.c_int64)()
    _checked(TORCH.torch_new_stable_ivalue(ctypes.byref(value)))
    value[0] = rows
    stack = (ctypes.c_int64 * 2)(matrix, ctypes.addressof(value.contents))
    name = b"mkldnn::_reorder_linear_weight"
    _checked(TORCH.torch_call_dispatcher(name, b"", stack, ctypes.c_uint64(_VERSION)))
    return stack[0]


def delete(handles: list[int]) -> None:
    for handle in handles:
        if handle:
            TORCH.aoti_torch_delete_tensor_object(ctypes.c_void_p(handle))


@intrinsic
def call(_context: Any, address: Any, arguments: Any) -> Any:
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
def by_operation(weight: Array, values_BK: Array, products_BN: Array) -> None:
    room = np.zeros(_ROOM, np.int64)
    room[_SIZES], room[_SIZES + 1] = values_BK.shape
    room[_STRIDES], room[_STRIDES + 1] = values_BK.strides[0] // values_BK.itemsize, 1
    failed = call(
        weight[_FROM_BLOB],
        (
            np.int64(values_BK.ctypes.data),
            np.int64(2),
            _address(room, _SIZES),
            _address(room, _STRIDES),
            np.int64(0),
            np.int32(weight[TYPE]),
            np.int32(_CPU),
            np.int32(0),
            _address(room, _STACK),
        ),
    )
    if not failed:
        failed = _by_onednn(weight, room) if weight[WAY] == PACKED else _by_torch(weight, room)
    if not failed:
        failed = call(weight[_DATA], (room[_PRODUCT], _address(room, _MEMORY)))
    if failed:
        raise RuntimeError("torch refused a product")
    given_BN = carray(at(room[_MEMORY], values_BK), products_BN.shape)
    for row in range(products_BN.shape[0]):
        for n in range(products_BN.shape[1]):
            products_BN[row, n] = load(given_BN[row, n])
    call(weight[_DELETE], (room[_PRODUCT],))


@compiled()
def _by_onednn(weight: Array, room: Array) -> int:
    """Not by torch's dispatcher, which loses the text of a text argument, 50 bytes, at each call (2.13)."""
    bias = _address(weight, BIAS) if weight[BIAS] else np.int64(0)
    none, nothing = weight[_NAMES] + _NONE_AT, np.int64(0)
    failed = call(
        weight[LINEAR],
        (room[_STACK], weight[WEIGHT], bias, none, nothing, nothing, nothing, _address(room, _PRODUCT)),
    )
    call(weight[_DELETE], (room[_STACK],))
    return failed


@compiled()
def _by_torch(weight: Array, room: Array) -> int:
    """The dispatcher takes its arguments over: the values' handle, a new one of the weight, of the bias."""
    failed = call(weight[_SHARE], (weight[WEIGHT], _address(room, _STACK + 1)))
    if not failed and weight[BIAS]:
        failed = call(weight[_NEW_VALUE], (_address(room, _STACK + 2),))
        if not failed:
            failed = call(weight[_SHARE], (weight[BIAS], room[_STACK + 2]))
    if not failed:
        no_overload = weight[_NAMES] + _NO_OVERLOAD_AT
        failed = call(weight[_CALL], (weight[_NAMES], no_overload, _address(room, _STACK), np.int64(_VERSION)))
        room[_PRODUCT] = room[_STACK]
    return failed
