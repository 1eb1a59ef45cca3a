"""Through time and back, in one compiled call for all time steps of a thread's rows: a product and the gates of each.

The walks are those of models.gates' functions, which say what the arrays are; `weight` is the numbers of the
models.products.Weight that every step multiplies with: forward the state, back the gradient of the gates' sums. A walk
works on the rows from `first` to before `last`, and Python's lock is free meanwhile. What goes back from the first time
step to the state before is added to `d_state_BH`.

Shape suffixes as in models.gates.
"""

import numpy as np

from models import gates
from models.gates import Array
from models.machine_code import compiled
from models.products import ROOM, multiply, release


@compiled()
def tanh_forward(
    weight: Array, first: int, last: int, table_MH: Array, ids_TB: Array, hidden_TBH: Array, states_TBH: Array
) -> None:
    room = np.empty(ROOM, np.int64)
    for t in range(ids_TB.shape[0]):
        product_BH = multiply(weight, states_TBH[t, first:last], room)
        gates.tanh_forward(t, first, product_BH, table_MH, ids_TB, hidden_TBH, states_TBH)
        release(weight, room)


@compiled()
def tanh_backward(
    weight: Array,
    first: int,
    last: int,
    d_last_BH: Array,
    d_outputs_TBH: Array,
    hidden_TBH: Array,
    d_sums_TBH: Array,
    d_state_BH: Array,
) -> None:
    room, T = np.empty(ROOM, np.int64), d_sums_TBH.shape[0]
    gates.tanh_backward(T - 1, first, d_last_BH[first:last], d_outputs_TBH, hidden_TBH, d_sums_TBH)
    for t in range(T - 2, -1, -1):
        back_BH = multiply(weight, d_sums_TBH[t + 1, first:last], room)
        gates.tanh_backward(t, first, back_BH, d_outputs_TBH, hidden_TBH, d_sums_TBH)
        release(weight, room)
    gates.add_rows(first, multiply(weight, d_sums_TBH[0, first:last], room), d_state_BH)
    release(weight, room)


@compiled()
def relu_forward(
    weight: Array, first: int, last: int, table_MH: Array, ids_TB: Array, hidden_TBH: Array, states_TBH: Array
) -> None:
    room = np.empty(ROOM, np.int64)
    for t in range(ids_TB.shape[0]):
        product_BH = multiply(weight, states_TBH[t, first:last], room)
        gates.relu_forward(t, first, product_BH, table_MH, ids_TB, hidden_TBH, states_TBH)
        release(weight, room)


@compiled()
def relu_backward(
    weight: Array,
    first: int,
    last: int,
    d_last_BH: Array,
    d_outputs_TBH: Array,
    hidden_TBH: Array,
    d_sums_TBH: Array,
    d_state_BH: Array,
) -> None:
    room, T = np.empty(ROOM, np.int64), d_sums_TBH.shape[0]
    gates.relu_backward(T - 1, first, d_last_BH[first:last], d_outputs_TBH, hidden_TBH, d_sums_TBH)
    for t in range(T - 2, -1, -1):
        back_BH = multiply(weight, d_sums_TBH[t + 1, first:last], room)
        gates.relu_backward(t, first, back_BH, d_outputs_TBH, hidden_TBH, d_sums_TBH)
        release(weight, room)
    gates.add_rows(first, multiply(weight, d_sums_TBH[0, first:last], room), d_state_BH)
    release(weight, room)


@compiled()
def gru_forward(
    weight: Array,
    first: int,
    last: int,
    table_M3: Array,
    ids_TB: Array,
    gates_TB3: Array,
    from_state_TBH: Array,
    hidden_TBH: Array,
    states_TBH: Array,
) -> None:
    room = np.empty(ROOM, np.int64)
    for t in range(ids_TB.shape[0]):
        product_B3 = multiply(weight, states_TBH[t, first:last], room)
        gates.gru_forward(t, first, product_B3, table_M3, ids_TB, gates_TB3, from_state_TBH, hidden_TBH, states_TBH)
        release(weight, room)


@compiled()
def gru_backward(
    weight: Array,
    first: int,
    last: int,
    d_last_BH: Array,
    d_outputs_TBH: Array,
    gates_TB3: Array,
    from_state_TBH: Array,
    hidden_TBH: Array,
    d_sums_TB4: Array,
    d_state_BH: Array,
) -> None:
    room, (T, _, H) = np.empty(ROOM, np.int64), d_outputs_TBH.shape
    row_H = np.empty(H, np.float32)
    d_from_state_TB3 = d_sums_TB4[:, :, H:]
    kept = (d_outputs_TBH, gates_TB3, from_state_TBH, hidden_TBH, d_sums_TB4, d_state_BH, row_H)
    gates.gru_backward(T - 1, first, d_last_BH[first:last], *kept)
    for t in range(T - 2, -1, -1):
        back_BH = multiply(weight, d_from_state_TB3[t + 1, first:last], room)
        gates.gru_backward(t, first, back_BH, *kept)
        release(weight, room)
    gates.add_rows(first, multiply(weight, d_from_state_TB3[0, first:last], room), d_state_BH)
    release(weight, room)


@compiled()
def lstm_forward(
    weight: Array,
    first: int,
    last: int,
    table_M4: Array,
    ids_TB: Array,
    gates_TB4: Array,
    cells_TBH: Array,
    squashed_TBH: Array,
    hidden_BH: Array,
    states_TBH: Array,
) -> None:
    room = np.empty(ROOM, np.int64)
    for t in range(ids_TB.shape[0]):
        product_B4 = multiply(weight, states_TBH[t, first:last], room)
        gates.lstm_forward(
            t, first, product_B4, table_M4, ids_TB, gates_TB4, cells_TBH, squashed_TBH, hidden_BH, states_TBH
        )
        release(weight, room)


@compiled()
def lstm_backward(
    weight: Array,
    first: int,
    last: int,
    d_last_BH: Array,
    d_outputs_TBH: Array,
    gates_TB4: Array,
    cells_TBH: Array,
    squashed_TBH: Array,
    d_sums_TB4: Array,
    d_cell_BH: Array,
    d_state_BH: Array,
) -> None:
    room, (T, _, H) = np.empty(ROOM, np.int64), d_outputs_TBH.shape
    kept = (d_outputs_TBH, gates_TB4, cells_TBH, squashed_TBH, d_sums_TB4, d_cell_BH, np.empty(H, np.float32))
    gates.lstm_backward(T - 1, first, d_last_BH[first:last], *kept)
    for t in range(T - 2, -1, -1):
        back_BH = multiply(weight, d_sums_TB4[t + 1, first:last], room)
        gates.lstm_backward(t, first, back_BH, *kept)
        release(weight, room)
    gates.add_rows(first, multiply(weight, d_sums_TB4[0, first:last], room), d_state_BH)
    release(weight, room)
