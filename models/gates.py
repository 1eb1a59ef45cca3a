"""The gates of recurrent cells, forward and back: everything that a time step does beside its matrix product.

Knows neither torch nor networks, only arrays: numba compiles each function once for a machine and keeps the result in
`NUMBA_CACHE_DIR`. One pass over the memory replaces a dozen operations with a result each, which took longer than the
product. Arrays in training's precision are float32, or bfloat16 as uint16; all arithmetic is float32. Invariant: what
is no finite number stays so, that training may notice.

Shape suffixes: T time steps, B rows, H hidden; a number is so many blocks of H. A function works on time step t of the
arrays that have a T, and on the rows from `first` on: as many as its product (or the gradient `back`) has, which comes
for these alone. Its input is the row of `table` that `ids` names; M such rows there are. Threads may so share the
arrays, and do not hold Python's lock meanwhile. Loops are short and over one row's slices: LLVM turns a loop into
vector instructions only as long as it can check in a few comparisons that none of its arrays overlap.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from models.machine_code import compiled

Array = np.ndarray[Any, Any]

# Fused multiply and add; never "no NaNs", which would hide a divergence.
_FASTMATH = {"contract", "nsz"}

_0, _1, _2 = np.float32(0), np.float32(1), np.float32(2)
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


@njit(inline="always", fastmath=_FASTMATH, error_model="numpy")
def sigmoid(x):
    """1 / (1 + exp(-x)) to 1e-7, and to 4e-6 of itself.

    exp(-x) is 2^k 2^f with k whole and |f| <= 1/2: k goes into the exponent's bits, 2^f is its Taylor series.
    """
    y = -x * _LOG2_E
    y = _LOWEST if y < _LOWEST else y  # in this order a NaN stays one
    y = _HIGHEST if y > _HIGHEST else y
    shifted = y + _SHIFT
    f = y - (shifted - _SHIFT)
    power = (((((_C6 * f + _C5) * f + _C4) * f + _C3) * f + _C2) * f + _C1) * f + _1
    scale = _float_of_bits(np.uint32(_bits_of_float(shifted) << np.uint32(23)) + np.uint32(127 << 23))
    return _1 / (_1 + power * scale)


@njit(inline="always", fastmath=_FASTMATH, error_model="numpy")
def tanh(x):
    """By the sigmoid: to 2e-7, absolutely."""
    return _2 * sigmoid(_2 * x) - _1


# numba wants the signatures below to be alike to the letter; annotations are part of them.
def _load(value):
    """A number of an array as float32."""


@overload(_load, inline="always")
def _compile_load(value):
    if isinstance(value, types.Integer):
        return lambda value: _float_of_bits(np.uint32(value) << np.uint32(16))
    return lambda value: value


def _store(row, j, value):
    """Put a float32 into an array."""


@overload(_store, inline="always")
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


@compiled(fastmath=_FASTMATH)
def tanh_forward(
    t: int, first: int, product_BH: Array, table_MH: Array, ids_TB: Array, hidden_TBH: Array, states_TBH: Array
) -> None:
    """h = tanh(product + input). `hidden_TBH` is float32; `states_TBH`, one longer, begins with the state before."""
    for row in range(product_BH.shape[0]):
        b = first + row
        p, x, h, s = product_BH[row], table_MH[ids_TB[t, b]], hidden_TBH[t, b], states_TBH[t + 1, b]
        for j in range(h.shape[0]):
            h[j] = tanh(_load(p[j]) + _load(x[j]))
        for j in range(h.shape[0]):
            _store(s, j, h[j])


@compiled(fastmath=_FASTMATH)
def tanh_backward(
    t: int, first: int, back_BH: Array, d_outputs_TBH: Array, hidden_TBH: Array, d_sums_TBH: Array
) -> None:
    """From the gradient of the state, `back` and `d_outputs` together, that of the sum under the tanh."""
    for row in range(back_BH.shape[0]):
        b = first + row
        k, o, h, d = back_BH[row], d_outputs_TBH[t, b], hidden_TBH[t, b], d_sums_TBH[t, b]
        for j in range(h.shape[0]):
            _store(d, j, (_load(k[j]) + _load(o[j])) * (_1 - h[j] * h[j]))


@compiled(fastmath=_FASTMATH)
def relu_forward(
    t: int, first: int, product_BH: Array, table_MH: Array, ids_TB: Array, hidden_TBH: Array, states_TBH: Array
) -> None:
    """h = max(0, product + input); otherwise as `tanh_forward`."""
    for row in range(product_BH.shape[0]):
        b = first + row
        p, x, h, s = product_BH[row], table_MH[ids_TB[t, b]], hidden_TBH[t, b], states_TBH[t + 1, b]
        for j in range(h.shape[0]):
            total = _load(p[j]) + _load(x[j])
            h[j] = _0 if total < _0 else total  # in this order a NaN stays one
        for j in range(h.shape[0]):
            _store(s, j, h[j])


@compiled(fastmath=_FASTMATH)
def relu_backward(
    t: int, first: int, back_BH: Array, d_outputs_TBH: Array, hidden_TBH: Array, d_sums_TBH: Array
) -> None:
    """As `tanh_backward`."""
    for row in range(back_BH.shape[0]):
        b = first + row
        k, o, h, d = back_BH[row], d_outputs_TBH[t, b], hidden_TBH[t, b], d_sums_TBH[t, b]
        for j in range(h.shape[0]):
            passed = _load(k[j]) + _load(o[j])
            _store(d, j, passed if h[j] > _0 else _0)


@compiled(fastmath=_FASTMATH)
def gru_forward(
    t: int,
    first: int,
    product_B3: Array,
    table_M3: Array,
    ids_TB: Array,
    gates_TB3: Array,
    from_state_TBH: Array,
    hidden_TBH: Array,
    states_TBH: Array,
) -> None:
    """r, z = sigmoid(product + input), n = tanh(input + r product), h = (1 - z) n + z h.

    Blocks r, z, n; `from_state` keeps n's product. `hidden_TBH` (float32) and `states_TBH` begin with the state before.
    """
    H = hidden_TBH.shape[2]
    for row in range(product_B3.shape[0]):
        b = first + row
        p, x, g, u = product_B3[row], table_M3[ids_TB[t, b]], gates_TB3[t, b], from_state_TBH[t, b]
        before, after, s = hidden_TBH[t, b], hidden_TBH[t + 1, b], states_TBH[t + 1, b]
        rz, r, z, n, p_n, x_n = g[: 2 * H], g[:H], g[H : 2 * H], g[2 * H :], p[2 * H :], x[2 * H :]
        for j in range(rz.shape[0]):
            rz[j] = sigmoid(_load(p[j]) + _load(x[j]))
        for j in range(H):
            u[j] = _load(p_n[j])
            n[j] = tanh(_load(x_n[j]) + r[j] * u[j])
        for j in range(H):
            h = n[j] + z[j] * (before[j] - n[j])
            after[j] = h
            _store(s, j, h)


@compiled(fastmath=_FASTMATH)
def gru_backward(
    t: int,
    first: int,
    back_BH: Array,
    d_outputs_TBH: Array,
    gates_TB3: Array,
    from_state_TBH: Array,
    hidden_TBH: Array,
    d_sums_TB4: Array,
    passed_BH: Array,
    row_H: Array,
) -> None:
    """Gradients of the gates' sums, in blocks n of the input, r, z, n of the state.

    `passed_BH` is the part of the state's gradient that came straight through z; it becomes that of the step before.
    `row_H` is room to work in.
    """
    H = passed_BH.shape[1]
    for row in range(back_BH.shape[0]):
        b = first + row
        k, o, g, u, before = back_BH[row], d_outputs_TBH[t, b], gates_TB3[t, b], from_state_TBH[t, b], hidden_TBH[t, b]
        r, z, n, d, all_d = g[:H], g[H : 2 * H], g[2 * H :], passed_BH[b], d_sums_TB4[t, b]
        d_n, d_r, d_z, d_u = all_d[:H], all_d[H : 2 * H], all_d[2 * H : 3 * H], all_d[3 * H :]
        for j in range(H):
            d[j] += _load(k[j]) + _load(o[j])
        for j in range(H):
            row_H[j] = d[j] * (_1 - z[j]) * (_1 - n[j] * n[j])
            _store(d_n, j, row_H[j])
        for j in range(H):
            passed = row_H[j] * r[j]
            _store(d_u, j, passed)
            _store(d_r, j, passed * u[j] * (_1 - r[j]))
        for j in range(H):
            _store(d_z, j, d[j] * (_1 - z[j]) * z[j] * (before[j] - n[j]))
            d[j] *= z[j]


@compiled(fastmath=_FASTMATH)
def lstm_forward(
    t: int,
    first: int,
    product_B4: Array,
    table_M4: Array,
    ids_TB: Array,
    gates_TB4: Array,
    cells_TBH: Array,
    squashed_TBH: Array,
    hidden_BH: Array,
    states_TBH: Array,
) -> None:
    """i, f, o = sigmoid(product + input), n = tanh(product + input), c = f c + i n, h = o tanh(c).

    Blocks i, f, n, o; `squashed` is tanh(c). `cells_TBH` (float32) and `states_TBH` begin with the state before.
    """
    H = hidden_BH.shape[1]
    for row in range(product_B4.shape[0]):
        b = first + row
        p, x, g, q, h, s = (
            product_B4[row],
            table_M4[ids_TB[t, b]],
            gates_TB4[t, b],
            squashed_TBH[t, b],
            hidden_BH[b],
            states_TBH[t + 1, b],
        )
        before, after = cells_TBH[t, b], cells_TBH[t + 1, b]
        i_f, i, f, n, o = g[: 2 * H], g[:H], g[H : 2 * H], g[2 * H : 3 * H], g[3 * H :]
        p_n, x_n, p_o, x_o = p[2 * H : 3 * H], x[2 * H : 3 * H], p[3 * H :], x[3 * H :]
        for j in range(i_f.shape[0]):
            i_f[j] = sigmoid(_load(p[j]) + _load(x[j]))
        for j in range(H):
            n[j] = tanh(_load(p_n[j]) + _load(x_n[j]))
        for j in range(H):
            o[j] = sigmoid(_load(p_o[j]) + _load(x_o[j]))
        for j in range(H):
            after[j] = f[j] * before[j] + i[j] * n[j]
        for j in range(H):
            q[j] = tanh(after[j])
        for j in range(H):
            h[j] = o[j] * q[j]
            _store(s, j, h[j])


@compiled(fastmath=_FASTMATH)
def lstm_backward(
    t: int,
    first: int,
    back_BH: Array,
    d_outputs_TBH: Array,
    gates_TB4: Array,
    cells_TBH: Array,
    squashed_TBH: Array,
    d_sums_TB4: Array,
    d_cell_BH: Array,
    row_H: Array,
) -> None:
    """Gradients of the gates' sums, in blocks i, f, n, o.

    `d_cell_BH` is the gradient of the cell after this step that comes from later ones; it becomes that of the step
    before. `row_H` is room to work in.
    """
    H = d_cell_BH.shape[1]
    for row in range(back_BH.shape[0]):
        b = first + row
        k, x, g, q, before = back_BH[row], d_outputs_TBH[t, b], gates_TB4[t, b], squashed_TBH[t, b], cells_TBH[t, b]
        i, f, n, o, d, all_d = g[:H], g[H : 2 * H], g[2 * H : 3 * H], g[3 * H :], d_cell_BH[b], d_sums_TB4[t, b]
        d_i, d_f, d_n, d_o = all_d[:H], all_d[H : 2 * H], all_d[2 * H : 3 * H], all_d[3 * H :]
        for j in range(H):
            row_H[j] = _load(k[j]) + _load(x[j])
        for j in range(H):
            d[j] += row_H[j] * o[j] * (_1 - q[j] * q[j])
        for j in range(H):
            _store(d_i, j, d[j] * n[j] * i[j] * (_1 - i[j]))
            _store(d_n, j, d[j] * i[j] * (_1 - n[j] * n[j]))
        for j in range(H):
            _store(d_f, j, d[j] * before[j] * f[j] * (_1 - f[j]))
        for j in range(H):
            _store(d_o, j, row_H[j] * q[j] * o[j] * (_1 - o[j]))
        for j in range(H):
            d[j] *= f[j]


@compiled(fastmath=_FASTMATH)
def add_rows(first: int, values_BH: Array, sums_BH: Array) -> None:
    """Add to the rows of float32 sums from `first` on."""
    for row in range(values_BH.shape[0]):
        v, s = values_BH[row], sums_BH[first + row]
        for j in range(s.shape[0]):
            s[j] += _load(v[j])


@compiled(fastmath=_FASTMATH)
def add_by_id(ids_TB: Array, values_TBG: Array, first: int, last: int, sums_MG: Array) -> None:
    """sums[ids[t, b]] += values[t, b] for all t and b, in float32, in columns `first` to before `last` alone."""
    T, B = ids_TB.shape
    for t in range(T):
        for b in range(B):
            v, s = values_TBG[t, b, first:last], sums_MG[ids_TB[t, b], first:last]
            for j in range(s.shape[0]):
                s[j] += _load(v[j])
