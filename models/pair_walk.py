"""One text read by two threads, each of which has half of the units of every layer.

A row's product does nothing but read the weights: two cores read them twice as fast, and half of them may stay in a
core's own cache. The threads look after one another by spinning, without Python's lock or the system's help, at every
layer of every character: where the other is not there in time, the reading is given up as a whole.

Shape suffixes as in models.inference; D two halves, 2 two steps, the one before and this one.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.gates import Array
from models.inference import advance, narrow
from models.machine_code import compiled
from models.products import multiply

LINE = 8
"""Numbers of a cache line: what two threads write lies in lines of their own."""
SYNC_NUMBERS = 3 * LINE
"""Turns of either half, and whether one of them has given up."""


@intrinsic
def _load(_context: Any, address: Any) -> Any:
    """A number that another thread stores, and whatever it stored before."""

    def generate(_: Any, builder: Any, __: Any, given: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(given[0], ir.IntType(64).as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def _store(_context: Any, address: Any, number: Any) -> Any:
    """Store a number for another thread, after whatever was stored before."""

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        builder.store_atomic(given[1], builder.inttoptr(given[0], ir.IntType(64).as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@compiled()
def give_up(sync: Array) -> None:
    """The other half is told, and ends."""
    _store(np.int64(sync.ctypes.data) + 2 * LINE * 8, np.int64(1))


@compiled()
def _is_there(sync: Array, other: int, turn: int, most_spins: int) -> bool:
    """Whether the other half has come to this turn in time."""
    place, given_up = np.int64(sync.ctypes.data) + other * LINE * 8, np.int64(sync.ctypes.data) + 2 * LINE * 8
    for _ in range(most_spins):
        if _load(place) >= turn:
            return True
        if _load(given_up):
            return False
    give_up(sync)
    return False


@compiled()
def read_half(
    cell: int,
    ids_T: Array,
    half: int,
    most_spins: int,
    sync: Array,
    states_LPH: Array,
    narrow_2LRH: Array,
    table_VG: Array,
    recurrent_DLW: Array,
    inputs_DLW: Array,
) -> bool:
    """Read a text with one half of the units; False if that was given up, and the states mean nothing: the other half
    was not there after `most_spins`.

    `states_LPH` and `narrow_2LRH[0]`, the hidden states in the products' type with R = 1, are those before; the numbers
    of `sync` zeros. Raises RuntimeError when torch refuses a product: then `give_up`.
    """
    (L, P), H, other = states_LPH.shape[:2], states_LPH.shape[2] // 2, 1 - half
    first, last, gates = half * H, (half + 1) * H, table_VG.shape[1] // states_LPH.shape[2]
    of_state_1G, of_input_1G = np.empty((1, gates * H), np.float32), np.empty((1, gates * H), np.float32)
    work_4, looked_up_G = np.empty(4 * H, np.float32), np.empty(gates * H, table_VG.dtype)
    mine = np.int64(sync.ctypes.data) + half * LINE * 8
    for t in range(ids_T.shape[0]):
        before_LRH, now_LRH = narrow_2LRH[t % 2], narrow_2LRH[(t + 1) % 2]
        for layer in range(L):
            # The other's half of this layer's state before, and with it that of all that is overwritten here.
            if t > 0 and not _is_there(sync, other, (t - 1) * L + layer + 1, most_spins):
                return False
            multiply(recurrent_DLW[half, layer], before_LRH[layer], of_state_1G)
            hidden, rest = states_LPH[layer, 0, first:last], states_LPH[layer, P - 1, first:last]
            if layer == 0:
                for gate in range(gates):
                    begin = gate * 2 * H + first
                    looked_up_G[gate * H : (gate + 1) * H] = table_VG[ids_T[t], begin : begin + H]
                advance(cell, of_state_1G[0], looked_up_G, hidden, rest, work_4)
            else:
                if not _is_there(sync, other, t * L + layer, most_spins):
                    return False
                multiply(inputs_DLW[half, layer], now_LRH[layer - 1], of_input_1G)
                advance(cell, of_state_1G[0], of_input_1G[0], hidden, rest, work_4)
            narrow(hidden, now_LRH[layer, 0, first:last])
            _store(mine, np.int64(t * L + layer + 1))
    return True
