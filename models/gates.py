"""The gates of recurrent cells, forward and back: everything that a time step does beside its matrix product.

Knows neither torch nor networks, only arrays: numba compiles each function once for a machine and keeps the result in
`NUMBA_CACHE_DIR`. One pass over the memory replaces a dozen operations with a result each, which took longer than the
product. Arrays in training's precision are float32, or bfloat16 as uint16; all arithmetic is float32.

Shape suffixes: T time steps, B rows, H hidden; a number is so many blocks of H. A function works on time step t of the
arrays that have a T, and on the rows from `first` on: as many as its product (or the gradient `back`) has, which comes
for these alone. Its input is the row of `table` that `ids` names; M such rows there are. Threads may so share the
arrays, and do not hold Python's lock meanwhile. Loops are short and over one row's slices: LLVM turns a loop into
vector instructions only as long as it can check in a few comparisons that none of its arrays overlap.
"""

from typing import Any

import numpy as np

from models.arithmetic import FASTMATH, load, sigmoid, store, tanh
from models.machine_code import compiled

Array = np.ndarray[Any, Any]

_0, _1 = np.float32(0), np.float32(1)


@compiled(fastmath=FASTMATH)
def tanh_forward(
    t: int, first: int, product_BH: Array, states_TBH: Array, table_MH: Array, ids_TB: Array, hidden_TBH: Array
) -> None:
    """h = tanh(product + input). `hidden_TBH` is float32; `states_TBH`, one longer, begins with the state before."""
    for row in range(product_BH.shape[0]):
        b = first + row
        p, x, h, s = product_BH[row], table_MH[ids_TB[t, b]], hidden_TBH[t, b], states_TBH[t + 1, b]
        for j in range(h.shape[0]):
            h[j] = tanh(load(p[j]) + load(x[j]))
        for j in range(h.shape[0]):
            store(s, j, h[j])


@compiled(fastmath=FASTMATH)
def tanh_backward(
    t: int, first: int, back_BH: Array, d_outputs_TBH: Array, hidden_TBH: Array, d_sums_TBH: Array
) -> None:
    """From the gradient of the state, `back` and `d_outputs` together, that of the sum under the tanh."""
    for row in range(back_BH.shape[0]):
        b = first + row
        k, o, h, d = back_BH[row], d_outputs_TBH[t, b], hidden_TBH[t, b], d_sums_TBH[t, b]
        for j in range(h.shape[0]):
            store(d, j, (load(k[j]) + load(o[j])) * (_1 - h[j] * h[j]))


@compiled(fastmath=FASTMATH)
def relu_forward(
    t: int, first: int, product_BH: Array, states_TBH: Array, table_MH: Array, ids_TB: Array, hidden_TBH: Array
) -> None:
    """h = max(0, product + input); otherwise as `tanh_forward`."""
    for row in range(product_BH.shape[0]):
        b = first + row
        p, x, h, s = product_BH[row], table_MH[ids_TB[t, b]], hidden_TBH[t, b], states_TBH[t + 1, b]
        for j in range(h.shape[0]):
            total = load(p[j]) + load(x[j])
            h[j] = _0 if total < _0 else total  # in this order a NaN stays one
        for j in range(h.shape[0]):
            store(s, j, h[j])


@compiled(fastmath=FASTMATH)
def relu_backward(
    t: int, first: int, back_BH: Array, d_outputs_TBH: Array, hidden_TBH: Array, d_sums_TBH: Array
) -> None:
    """As `tanh_backward`."""
    for row in range(back_BH.shape[0]):
        b = first + row
        k, o, h, d = back_BH[row], d_outputs_TBH[t, b], hidden_TBH[t, b], d_sums_TBH[t, b]
        for j in range(h.shape[0]):
            passed = load(k[j]) + load(o[j])
            store(d, j, passed if h[j] > _0 else _0)


@compiled(fastmath=FASTMATH)
def gru_forward(
    t: int,
    first: int,
    product_B3: Array,
    states_TBH: Array,
    table_M3: Array,
    ids_TB: Array,
    gates_TB3: Array,
    from_state_TBH: Array,
    hidden_TBH: Array,
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
            rz[j] = sigmoid(load(p[j]) + load(x[j]))
        for j in range(H):
            u[j] = load(p_n[j])
            n[j] = tanh(load(x_n[j]) + r[j] * u[j])
        for j in range(H):
            h = n[j] + z[j] * (before[j] - n[j])
            after[j] = h
            store(s, j, h)


@compiled(fastmath=FASTMATH)
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
    work_BH: Array,
) -> None:
    """Gradients of the gates' sums, in blocks n of the input, r, z, n of the state.

    `passed_BH` is the part of the state's gradient that came straight through z; it becomes that of the step before.
    `work_BH` is room to work in.
    """
    H = passed_BH.shape[1]
    for row in range(back_BH.shape[0]):
        b = first + row
        k, o, g, u, before = back_BH[row], d_outputs_TBH[t, b], gates_TB3[t, b], from_state_TBH[t, b], hidden_TBH[t, b]
        r, z, n, d, all_d, w = g[:H], g[H : 2 * H], g[2 * H :], passed_BH[b], d_sums_TB4[t, b], work_BH[b]
        d_n, d_r, d_z, d_u = all_d[:H], all_d[H : 2 * H], all_d[2 * H : 3 * H], all_d[3 * H :]
        for j in range(H):
            d[j] += load(k[j]) + load(o[j])
        for j in range(H):
            w[j] = d[j] * (_1 - z[j]) * (_1 - n[j] * n[j])
            store(d_n, j, w[j])
        for j in range(H):
            passed = w[j] * r[j]
            store(d_u, j, passed)
            store(d_r, j, passed * u[j] * (_1 - r[j]))
        for j in range(H):
            store(d_z, j, d[j] * (_1 - z[j]) * z[j] * (before[j] - n[j]))
            d[j] *= z[j]


@compiled(fastmath=FASTMATH)
def lstm_forward(
    t: int,
    first: int,
    product_B4: Array,
    states_TBH: Array,
    table_M4: Array,
    ids_TB: Array,
    gates_TB4: Array,
    cells_TBH: Array,
    squashed_TBH: Array,
    hidden_BH: Array,
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
            i_f[j] = sigmoid(load(p[j]) + load(x[j]))
        for j in range(H):
            n[j] = tanh(load(p_n[j]) + load(x_n[j]))
        for j in range(H):
            o[j] = sigmoid(load(p_o[j]) + load(x_o[j]))
        for j in range(H):
            after[j] = f[j] * before[j] + i[j] * n[j]
        for j in range(H):
            q[j] = tanh(after[j])
        for j in range(H):
            h[j] = o[j] * q[j]
            store(s, j, h[j])


@compiled(fastmath=FASTMATH)
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
    work_BH: Array,
) -> None:
    """Gradients of the gates' sums, in blocks i, f, n, o.

    `d_cell_BH` is the gradient of the cell after this step that comes from later ones; it becomes that of the step
    before. `work_BH` is room to work in.
    """
    H = d_cell_BH.shape[1]
    for row in range(back_BH.shape[0]):
        b = first + row
        k, x, g, q, before = back_BH[row], d_outputs_TBH[t, b], gates_TB4[t, b], squashed_TBH[t, b], cells_TBH[t, b]
        i, f, n, o, d, all_d = g[:H], g[H : 2 * H], g[2 * H : 3 * H], g[3 * H :], d_cell_BH[b], d_sums_TB4[t, b]
        w = work_BH[b]
        d_i, d_f, d_n, d_o = all_d[:H], all_d[H : 2 * H], all_d[2 * H : 3 * H], all_d[3 * H :]
        for j in range(H):
            w[j] = load(k[j]) + load(x[j])
        for j in range(H):
            d[j] += w[j] * o[j] * (_1 - q[j] * q[j])
        for j in range(H):
            store(d_i, j, d[j] * n[j] * i[j] * (_1 - i[j]))
            store(d_n, j, d[j] * i[j] * (_1 - n[j] * n[j]))
        for j in range(H):
            store(d_f, j, d[j] * before[j] * f[j] * (_1 - f[j]))
        for j in range(H):
            store(d_o, j, w[j] * q[j] * o[j] * (_1 - o[j]))
        for j in range(H):
            d[j] *= f[j]


@compiled(fastmath=FASTMATH)
def add_rows(first: int, values_BH: Array, sums_BH: Array) -> None:
    """Add to the rows of float32 sums from `first` on."""
    for row in range(values_BH.shape[0]):
        v, s = values_BH[row], sums_BH[first + row]
        for j in range(s.shape[0]):
            s[j] += load(v[j])


@compiled(fastmath=FASTMATH)
def add_by_id(ids_TB: Array, values_TBG: Array, first: int, last: int, sums_MG: Array) -> None:
    """sums[ids[t, b]] += values[t, b] for all t and b, in float32, in columns `first` to before `last` alone."""
    T, B = ids_TB.shape
    for t in range(T):
        for b in range(B):
            v, s = values_TBG[t, b, first:last], sums_MG[ids_TB[t, b], first:last]
            for j in range(s.shape[0]):
                s[j] += load(v[j])
