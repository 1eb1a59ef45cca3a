"""Numbers in compiled loops: exp, sigmoid and tanh in float32, which LLVM turns into vector instructions, and bfloat16.

Inlined where they are used. Invariant: what is no finite number stays so, that training may notice.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

FASTMATH = {"contract", "nsz"}
"""Fused multiply and add; never "no NaNs", which would hide a divergence."""

_1, _2 = np.float32(1), np.float32(2)
_LOG2_E = np.float32(math.log2(math.e))
_LOWEST, _HIGHEST = np.float32(-126), np.float32(126)
_SHIFT = np.float32(1.5 * 2**23)
"""Adding it rounds a float32 to a whole number, which the low bits then hold."""
_C1, _C2, _C3, _C4, _C5, _C6 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 7))


@intrinsic
def _float_of_bits(_context: Any, bits: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def _bits_of_float(_context: Any, value: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@njit(inline="always", fastmath=FASTMATH, error_model="numpy")
def exp(x):
    """e^x to (1 + |x|) 2e-7 of itself; never below 2^-126, nor above 2^126.

    It is 2^k 2^f with k whole and |f| <= 1/2: k goes into the exponent's bits, 2^f is its Taylor series.
    """
    y = x * _LOG2_E
    y = _LOWEST if y < _LOWEST else y  # in this order a NaN stays one
    y = _HIGHEST if y > _HIGHEST else y
    shifted = y + _SHIFT
    f = y - (shifted - _SHIFT)
    power = (((((_C6 * f + _C5) * f + _C4) * f + _C3) * f + _C2) * f + _C1) * f + _1
    scale = _float_of_bits(np.uint32(_bits_of_float(shifted) << np.uint32(23)) + np.uint32(127 << 23))
    return power * scale


@njit(inline="always", fastmath=FASTMATH, error_model="numpy")
def sigmoid(x):
    """1 / (1 + exp(-x)) to 1e-7, and to 4e-6 of itself."""
    return _1 / (_1 + exp(-x))


@njit(inline="always", fastmath=FASTMATH, error_model="numpy")
def tanh(x):
    """By the sigmoid: to 2e-7, absolutely."""
    return _2 * sigmoid(_2 * x) - _1


# numba wants the signatures below to be alike to the letter; annotations are part of them.
def load(value):
    """A number of an array as float32."""


@overload(load, inline="always")
def _compile_load(value):
    if isinstance(value, types.Integer):
        return lambda value: _float_of_bits(np.uint32(value) << np.uint32(16))
    return lambda value: value


def store(row, j, value):
    """Put a float32 into an array."""


@overload(store, inline="always")
def _compile_store(row, j, value):
    if isinstance(row.dtype, types.Integer):

        def store_bfloat16(row, j, value):
            bits = _bits_of_float(value)  # rounded to nearest, ties to even
            even = (bits >> np.uint32(16)) & np.uint32(1)
            # A NaN is not rounded, which could make it a number: it is cut and keeps the bit that says what it is.
            number = np.uint32(value == value)
            rounded = (bits + number * (np.uint32(0x7FFF) + even)) >> np.uint32(16)
            row[j] = np.uint16(rounded | ((np.uint32(1) - number) << np.uint32(6)))

        return store_bfloat16

    def store_float32(row, j, value):
        row[j] = value

    return store_float32
