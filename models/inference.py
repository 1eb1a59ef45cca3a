"""One character for every row, in one compiled call: products, gates, logits and the draw.

Knows neither torch's networks nor texts, only arrays; models.stepper owns them. Arrays in the products' type are
float32, or bfloat16 as uint16; gates, states and logits are float32, what is drawn from is float64. Invariant: what a
row gives depends on its own state, character, settings and noise alone, as long as the products' rows do so.

Shape suffixes: R rows, T steps, L layers, H hidden, P parts of a layer's state, G all gates' sums, V vocabulary, W
numbers of a models.products.Weight; a number is so many blocks of H. A function works on rows `first` to before `last`.
"""

import numpy as np
from numba import carray

from models.arithmetic import FASTMATH, load, sigmoid, store, tanh
from models.gates import Array
from models.machine_code import compiled
from models.products import multiply
from models.sampling import FORBIDDEN, READ, WRITTEN
from models.torch_calls import at

TANH, RELU, GRU, LSTM = range(4)
"""Which cell, by number: compiled code has no names."""

_0 = np.float32(0)
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: splitmix64's increment."""


@compiled(fastmath=FASTMATH)
def tanh_cell(product_H: Array, input_H: Array, hidden_H: Array) -> None:
    for j in range(hidden_H.shape[0]):
        hidden_H[j] = tanh(load(product_H[j]) + load(input_H[j]))


@compiled(fastmath=FASTMATH)
def relu_cell(product_H: Array, input_H: Array, hidden_H: Array) -> None:
    for j in range(hidden_H.shape[0]):
        total = load(product_H[j]) + load(input_H[j])
        hidden_H[j] = _0 if total < _0 else total  # in this order a NaN stays one


@compiled(fastmath=FASTMATH)
def gru_cell(product_3: Array, input_3: Array, hidden_H: Array, work_4: Array) -> None:
    """As models.gates.gru_forward."""
    H = hidden_H.shape[0]
    rz, r, z, p_n, x_n = work_4[: 2 * H], work_4[:H], work_4[H : 2 * H], product_3[2 * H :], input_3[2 * H :]
    for j in range(2 * H):
        rz[j] = sigmoid(load(product_3[j]) + load(input_3[j]))
    for j in range(H):
        r[j] = tanh(load(x_n[j]) + r[j] * load(p_n[j]))
    for j in range(H):
        hidden_H[j] = r[j] + z[j] * (hidden_H[j] - r[j])


@compiled(fastmath=FASTMATH)
def lstm_cell(product_4: Array, input_4: Array, hidden_H: Array, cell_H: Array, work_4: Array) -> None:
    """As models.gates.lstm_forward."""
    H = hidden_H.shape[0]
    i, f, n, o = work_4[:H], work_4[H : 2 * H], work_4[2 * H : 3 * H], work_4[3 * H :]
    for j in range(4 * H):
        work_4[j] = load(product_4[j]) + load(input_4[j])
    for j in range(H):
        i[j] = sigmoid(i[j]) * tanh(n[j])
    for j in range(H):
        cell_H[j] = sigmoid(f[j]) * cell_H[j] + i[j]
    for j in range(H):
        hidden_H[j] = sigmoid(o[j]) * tanh(cell_H[j])


@compiled(fastmath=FASTMATH)
def narrow(hidden_H: Array, narrow_H: Array) -> None:
    for j in range(hidden_H.shape[0]):
        store(narrow_H, j, hidden_H[j])


@compiled()
def advance(cell: int, product_G: Array, input_G: Array, hidden_H: Array, rest_H: Array, work_4: Array) -> None:
    """One layer of one row, in place; `rest_H` is an LSTM's cell."""
    if cell == GRU:
        gru_cell(product_G, input_G, hidden_H, work_4)
    elif cell == LSTM:
        lstm_cell(product_G, input_G, hidden_H, rest_H, work_4)
    elif cell == TANH:
        tanh_cell(product_G, input_G, hidden_H)
    else:
        relu_cell(product_G, input_G, hidden_H)


@compiled()
def read_character(
    cell: int,
    ids_R: Array,
    first: int,
    last: int,
    table_VG: Array,
    recurrent_LW: Array,
    inputs_LW: Array,
    states_LPRH: Array,
    narrow_LRH: Array,
    sums_2RG: Array,
    work_4: Array,
) -> None:
    """The states after one more character of each row, in place.

    From `table_VG` on it is what functions below call a network: `table_VG` is embedding and input weights of the
    first layer; `inputs_LW` those of the layers above (the first is not used). `narrow_LRH` is the hidden states in the
    products' type; `sums_2RG`, for `last - first` rows at least, and `work_4` are room to work in. Raises RuntimeError
    when torch refuses.
    """
    of_state_RG, of_input_RG = sums_2RG[0, : last - first], sums_2RG[1, : last - first]
    for layer in range(states_LPRH.shape[0]):
        multiply(recurrent_LW[layer], narrow_LRH[layer, first:last], of_state_RG)
        if layer > 0:
            multiply(inputs_LW[layer], narrow_LRH[layer - 1, first:last], of_input_RG)
        for row in range(first, last):
            hidden, rest = states_LPRH[layer, 0, row], states_LPRH[layer, states_LPRH.shape[1] - 1, row]
            if layer == 0:
                advance(cell, of_state_RG[row - first], table_VG[ids_R[row]], hidden, rest, work_4)
            else:
                advance(cell, of_state_RG[row - first], of_input_RG[row - first], hidden, rest, work_4)
            narrow(hidden, narrow_LRH[layer, row])


@compiled()
def read_text(cell: int, ids_T: Array, *network: Array) -> None:
    """The state of the first row after it has read a text, in place. Raises as `read_character`."""
    for t in range(ids_T.shape[0]):
        read_character(cell, ids_T[t:], 0, 1, *network)


@compiled()
def write_characters(
    cell: int,
    ids_R: Array,
    first: int,
    last: int,
    states_LPRH: Array,
    output_W: Array,
    numbers_R6: Array,
    top_k_R: Array,
    keys_R: Array,
    positions_R: Array,
    tallies_R: Array,
    drawn_TR: Array,
    logits_RV: Array,
    work_V: Array,
    *network: Array,
) -> None:
    """As many characters of each row as `drawn_TR` has steps, each read by the next step.

    `ids_R` is what each row reads first, in the end what it wrote last. `numbers_R6` are temperature, top_p, min_p and
    the penalties for repetition, presence and frequency; `keys_R` (uint64) and `positions_R` the noise's place, the
    latter moved on; `tallies_R` the addresses of tallies (int32 [V], models.sampling), 0 for none. `logits_RV`, as
    `sums_2RG`, and `work_V` are room to work in. Where a row's network answers nothing finite it writes -1 and reads
    character 0: what it writes after that means nothing. Raises as `read_character`.
    """
    top, like_tally = states_LPRH.shape[0] - 1, np.empty(0, np.int32)
    for t in range(drawn_TR.shape[0]):
        read_character(cell, ids_R, first, last, *network)
        multiply(output_W, states_LPRH[top, 0, first:last], logits_RV[: last - first])
        for row in range(first, last):
            noise = uniform(keys_R[row], positions_R[row])
            temperature, top_p, min_p, repetition, presence, frequency = numbers_R6[row]
            logits_V = logits_RV[row - first]
            if tallies_R[row]:
                tally_V = carray(at(tallies_R[row], like_tally), logits_V.shape)
                adjust(logits_V, tally_V, repetition, presence, frequency)
            drawn = draw(logits_V, temperature, top_k_R[row], top_p, min_p, noise, work_V)
            if tallies_R[row] and drawn >= 0:
                tally_V[drawn] += WRITTEN
            drawn_TR[t, row] = drawn
            ids_R[row] = max(drawn, 0)
            positions_R[row] += 1


@compiled()
def adjust(logits_V: Array, tally_V: Array, repetition: float, presence: float, frequency: float) -> None:
    """As models.sampling.adjusted, in place."""
    for v in range(logits_V.shape[0]):
        tally, logit = tally_V[v], np.float64(logits_V[v])
        if tally >= READ:
            logit *= 1 / repetition if logit > 0 else repetition
        if tally >= WRITTEN:
            logit -= frequency * (tally // WRITTEN) + presence
        logits_V[v] = -np.inf if tally & FORBIDDEN else logit


@compiled()
def draw(
    logits_V: Array, temperature: float, top_k: int, top_p: float, min_p: float, noise: float, weights_V: Array
) -> int:
    """As models.sampling.draw; -1 for logits that are NaN or +infinity. `weights_V` (float64) is room to work in."""
    V, likeliest = logits_V.shape[0], 0
    for v in range(V):
        if not logits_V[v] <= logits_V[likeliest]:  # larger, or NaN
            likeliest = v
            if logits_V[v] != logits_V[v]:
                return -1
    highest = np.float64(logits_V[likeliest])
    if not abs(highest) < np.inf:
        return -1
    if temperature == 0:
        return likeliest
    for v in range(V):
        weights_V[v] = np.exp((np.float64(logits_V[v]) - highest) / temperature)
    if 0 < top_k < V or top_p < 1:
        _drop_unlikely(weights_V[:V], top_k, top_p)
    total = 0.0
    for v in range(V):
        if weights_V[v] < min_p:
            weights_V[v] = 0
        total += weights_V[v]
    wanted, share, last = noise * total, 0.0, likeliest
    for v in range(V):
        share += weights_V[v]
        if weights_V[v] > 0:
            last = v
            if share > wanted:
                return v
    return last  # the product was rounded up to the total


@compiled()
def _drop_unlikely(weights_V: Array, top_k: int, top_p: float) -> None:
    """Top-k, then top-p, as models.sampling. Only what stays is sorted, by taking it from a heap.

    Not by numpy's partition and argsort, which take six seconds to compile.
    """
    V, total = weights_V.shape[0], weights_V.sum()
    limited = 0 < top_k < V
    # All below an even share of what may be dropped are dropped: together they are less than that.
    lowest = 0.0 if limited else (1 - top_p) * total / V
    heap, size = np.empty(V, np.int64), 0
    for v in range(V):
        if weights_V[v] >= lowest:
            heap[size] = v
            size += 1
    for place in range(size // 2 - 1, -1, -1):
        _sink(weights_V, heap[:size], place)
    most = top_k if limited else size
    if limited and top_p < 1:  # the share is one of the k likeliest
        total, kept = 0.0, 0
        while kept < most:
            total += weights_V[heap[0]]
            kept += 1
            _take_first(weights_V, heap[: size - kept + 1])
    else:
        kept, share = 0, 0.0
        while kept < most and (top_p >= 1 or kept == 0 or share < top_p * total):
            share += weights_V[heap[0]]
            kept += 1
            _take_first(weights_V, heap[: size - kept + 1])
    stays = heap[size - kept : size][::-1].copy()  # likeliest first
    if limited and top_p < 1:
        share = 0.0
        for place in range(kept):
            share += weights_V[stays[place]]
            if share >= top_p * total:
                kept = place + 1
                break
    heaviest = weights_V[stays[:kept]]
    weights_V[:] = 0
    for place in range(kept):
        weights_V[stays[place]] = heaviest[place]


@compiled()
def _take_first(weights_V: Array, heap: Array) -> None:
    """The likeliest goes to the end, the others are a heap again."""
    last = heap.shape[0] - 1
    heap[0], heap[last] = heap[last], heap[0]
    _sink(weights_V, heap[:last], 0)


@compiled()
def _sink(weights_V: Array, heap: Array, place: int) -> None:
    """Characters are in a heap, likelier ones above, of equal ones the lowest id; but for the one at `place`."""
    size = heap.shape[0]
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and _is_likelier(weights_V, heap[below + 1], heap[below]):
            below += 1
        if not _is_likelier(weights_V, heap[below], heap[place]):
            return
        heap[below], heap[place] = heap[place], heap[below]
        place = below


@compiled()
def _is_likelier(weights_V: Array, one: int, other: int) -> bool:
    return bool(weights_V[one] > weights_V[other] or (weights_V[one] == weights_V[other] and one < other))


@compiled()
def uniform(key: int, position: int) -> float:
    """As models.sampling.uniform."""
    return np.float64(_mix(np.uint64(key) + np.uint64(position + 1) * _GAMMA) >> np.uint64(11)) * 2.0**-53


@compiled()
def _mix(value: np.uint64) -> np.uint64:
    """As models.sampling: splitmix64's finalizer."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
