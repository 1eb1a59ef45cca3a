"""Through time and back, in one compiled call for all time steps of a thread's rows: a product and the gates of each.

`weight` is the numbers of the models.products.Weight that every step multiplies with: forward the states
[T + 1, B, H], of which the first is given; back the gradient of the gates' sums [T, B, G]. `arrays` are those of the
function of models.gates that is named alike. A walk works on the rows from `first` to before `last`, and Python's lock
is free meanwhile. What goes back from the first time step to the state before is added to `d_state` [B, H]. Raises
RuntimeError when torch refuses a product.

There is one walk for each function of models.gates: numba keeps no code of a function that is given another.

Shape suffixes as in models.gates.
"""

import numpy as np

from models import gates
from models.gates import Array
from models.machine_code import compiled
from models.products import multiply, width


@compiled()
def tanh_forward(weight: Array, first: int, last: int, states_TBH: Array, *arrays: Array) -> None:
    product = np.empty((last - first, width(weight)), np.float32)
    for t in range(states_TBH.shape[0] - 1):
        multiply(weight, states_TBH[t, first:last], product)
        gates.tanh_forward(t, first, product, states_TBH, *arrays)


@compiled()
def tanh_backward(
    weight: Array, first: int, last: int, d_last_BH: Array, d_state_BH: Array, d_sums_TBG: Array, *arrays: Array
) -> None:
    back_BH, T = np.empty((last - first, width(weight)), np.float32), d_sums_TBG.shape[0]
    gates.tanh_backward(T - 1, first, d_last_BH[first:last], *arrays)
    for t in range(T - 2, -1, -1):
        multiply(weight, d_sums_TBG[t + 1, first:last], back_BH)
        gates.tanh_backward(t, first, back_BH, *arrays)
    multiply(weight, d_sums_TBG[0, first:last], back_BH)
    gates.add_rows(first, back_BH, d_state_BH)


@compiled()
def relu_forward(weight: Array, first: int, last: int, states_TBH: Array, *arrays: Array) -> None:
    product = np.empty((last - first, width(weight)), np.float32)
    for t in range(states_TBH.shape[0] - 1):
        multiply(weight, states_TBH[t, first:last], product)
        gates.relu_forward(t, first, product, states_TBH, *arrays)


@compiled()
def relu_backward(
    weight: Array, first: int, last: int, d_last_BH: Array, d_state_BH: Array, d_sums_TBG: Array, *arrays: Array
) -> None:
    back_BH, T = np.empty((last - first, width(weight)), np.float32), d_sums_TBG.shape[0]
    gates.relu_backward(T - 1, first, d_last_BH[first:last], *arrays)
    for t in range(T - 2, -1, -1):
        multiply(weight, d_sums_TBG[t + 1, first:last], back_BH)
        gates.relu_backward(t, first, back_BH, *arrays)
    multiply(weight, d_sums_TBG[0, first:last], back_BH)
    gates.add_rows(first, back_BH, d_state_BH)


@compiled()
def gru_forward(weight: Array, first: int, last: int, states_TBH: Array, *arrays: Array) -> None:
    product = np.empty((last - first, width(weight)), np.float32)
    for t in range(states_TBH.shape[0] - 1):
        multiply(weight, states_TBH[t, first:last], product)
        gates.gru_forward(t, first, product, states_TBH, *arrays)


@compiled()
def gru_backward(
    weight: Array, first: int, last: int, d_last_BH: Array, d_state_BH: Array, d_sums_TBG: Array, *arrays: Array
) -> None:
    back_BH, T = np.empty((last - first, width(weight)), np.float32), d_sums_TBG.shape[0]
    gates.gru_backward(T - 1, first, d_last_BH[first:last], *arrays)
    for t in range(T - 2, -1, -1):
        multiply(weight, d_sums_TBG[t + 1, first:last], back_BH)
        gates.gru_backward(t, first, back_BH, *arrays)
    multiply(weight, d_sums_TBG[0, first:last], back_BH)
    gates.add_rows(first, back_BH, d_state_BH)


@compiled()
def lstm_forward(weight: Array, first: int, last: int, states_TBH: Array, *arrays: Array) -> None:
    product = np.empty((last - first, width(weight)), np.float32)
    for t in range(states_TBH.shape[0] - 1):
        multiply(weight, states_TBH[t, first:last], product)
        gates.lstm_forward(t, first, product, states_TBH, *arrays)


@compiled()
def lstm_backward(
    weight: Array, first: int, last: int, d_last_BH: Array, d_state_BH: Array, d_sums_TBG: Array, *arrays: Array
) -> None:
    back_BH, T = np.empty((last - first, width(weight)), np.float32), d_sums_TBG.shape[0]
    gates.lstm_backward(T - 1, first, d_last_BH[first:last], *arrays)
    for t in range(T - 2, -1, -1):
        multiply(weight, d_sums_TBG[t + 1, first:last], back_BH)
        gates.lstm_backward(t, first, back_BH, *arrays)
    multiply(weight, d_sums_TBG[0, first:last], back_BH)
    gates.add_rows(first, back_BH, d_state_BH)
