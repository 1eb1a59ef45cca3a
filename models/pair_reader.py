"""Reads a long text with two threads, as long as that is faster than with one.

Knows the folded weights, no rows. Invariant: a state has the same bits, whoever read the text.

Shape suffixes as in models.pair_walk.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import pair_walk
from models.products import Weight, array_of
from models.torch_calls import telling_refusals

FEWEST_CHARACTERS = 2048
"""Of a text that is worth the preparations, which take some milliseconds, beside the reading."""
FEWEST_WEIGHT_BYTES = 256 * 1024
"""Of a layer's recurrent weights. Smaller ones lie in a core's own cache, and a product takes as long as meeting."""
MOST_SPINS = 500_000
"""Half a millisecond: a thread that works is never so late, one that the system has set aside is."""
MOST_WEIGHT_BYTES = 16 * 1024 * 1024
"""The halves are a second copy of all weights, beside those that models may take, and made in a tenth of a second."""
FIRST_REST, LONGEST_REST = 16, 1024
"""Pieces that one thread reads before two try again, after one trial in vain and after many."""

Read = Callable[[Tensor, NDArray[np.int64]], Tensor]


class PairReader:
    """Reads pieces of a text, `read(state_LPH, ids_T)` giving the state after them, as `alone` does."""

    def __init__(
        self,
        cell: int,
        table_VG: NDArray[Any],
        halves: "Future[Halves]",
        alone: Read,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._cell, self._table_VG = cell, table_VG
        self._alone, self._clock = alone, clock
        self._resting, self._next_rest = 1, FIRST_REST  # one piece alone first, to compare with
        self._alone_seconds = 0.0  # for each character
        self._most_spins = MOST_SPINS
        self.halves = halves

    def __call__(self, state_LPH: Tensor, ids_T: NDArray[np.int64]) -> Tensor:
        # At a single character they might not meet, and one would wait for another that has not begun.
        if len(ids_T) < 2 or self._resting or not self.halves.done() or self.halves.exception() is not None:
            self._resting = max(0, self._resting - 1)
            return self._read_alone(state_LPH, ids_T)
        began = self._clock()
        after_LPH = self._read_together(self.halves.result(), state_LPH, ids_T)
        seconds = (self._clock() - began) / len(ids_T)
        if after_LPH is None or seconds > self._alone_seconds:
            self._resting = self._next_rest
            self._next_rest = min(2 * self._next_rest, LONGEST_REST)
        else:
            self._next_rest = FIRST_REST
        return self._read_alone(state_LPH, ids_T) if after_LPH is None else after_LPH

    def _read_alone(self, state_LPH: Tensor, ids_T: NDArray[np.int64]) -> Tensor:
        began = self._clock()
        after_LPH = self._alone(state_LPH, ids_T)
        self._alone_seconds = (self._clock() - began) / len(ids_T)
        return after_LPH

    def _read_together(self, halves: "Halves", state_LPH: Tensor, ids_T: NDArray[np.int64]) -> Tensor | None:
        """None where that was given up."""
        if not halves.usable:
            return None
        after_LPH, dtype = state_LPH.clone(), halves.dtype
        narrow_2LRH = torch.stack((after_LPH[:, :1].to(dtype),) * 2)
        sync = np.zeros(pair_walk.SYNC_NUMBERS, np.int64)
        states = after_LPH.numpy(), array_of(narrow_2LRH)

        def read_half(half: int) -> bool:
            try:
                with telling_refusals():
                    return bool(
                        pair_walk.read_half(
                            *(self._cell, ids_T, half, self._most_spins, sync, *states),
                            *(self._table_VG, halves.recurrent_DLW, halves.inputs_DLW),
                        )
                    )
            except BaseException:
                pair_walk.give_up(sync)
                raise

        other: Future[bool] = _other_thread().submit(read_half, 1)
        done = others_done = False
        try:
            done = read_half(0)
        finally:
            # One that has begun is waited for, in any case: it works on memory of ours.
            if done or not other.cancel():
                others_done = other.result()
        return after_LPH if done and others_done else None


def prepare(recurrent: Sequence[Weight], inputs: Sequence[Weight]) -> "Future[Halves]":
    """The halves of a network's weights, once they are there. For all its readers, as long as there are any."""
    return _preparing_thread().submit(Halves, recurrent, inputs)


class Halves:
    """The weights, cut into those of the first half of units and those of the second."""

    def __init__(self, recurrent: Sequence[Weight], inputs: Sequence[Weight]) -> None:
        self.dtype = recurrent[0].dtype
        self._kept = [[weight.parts(2) for weight in weights] for weights in (recurrent, inputs)]
        of_recurrent, of_inputs = self._kept
        nothing = [np.zeros_like(recurrent[0].numbers)] * 2  # the first layer's input is looked up
        self.recurrent_DLW = np.array([[halves[d].numbers for halves in of_recurrent] for d in (0, 1)])
        self.inputs_DLW = np.array([[nothing[d], *(halves[d].numbers for halves in of_inputs)] for d in (0, 1)])
        self.usable = all(map(_agree, [*recurrent, *inputs], [*of_recurrent, *of_inputs]))
        """Whether products by halves have the same bits."""


def _agree(whole: Weight, halves: Sequence[Weight]) -> bool:
    normal_BK = np.random.default_rng(0).standard_normal((4, whole.inputs), np.float32)
    for values_K in array_of(torch.from_numpy(normal_BK).to(whole.dtype)):
        products = [half.times(values_K[None]).reshape(-1, whole.inputs // 2) for half in halves]
        if not np.array_equal(whole.times(values_K[None])[0], np.concatenate(products, 1).ravel()):
            return False
    return True


def compile_first(dtype: torch.dtype) -> None:
    """Have the reading by two threads compiled."""
    table_VG, ids_T = array_of(torch.zeros(1, 2, dtype=dtype)), np.zeros(0, np.int64)
    states_LPH, narrow_2LRH = np.zeros((1, 1, 2), np.float32), array_of(torch.zeros(2, 1, 1, 2, dtype=dtype))
    weight, sync = Weight(torch.zeros(2, 2, dtype=dtype), None, 1), np.zeros(pair_walk.SYNC_NUMBERS, np.int64)
    weights_DLW = np.stack([weight.numbers] * 2)[:, None]
    pair_walk.read_half(0, ids_T, 0, 0, sync, states_LPH, narrow_2LRH, table_VG, weights_DLW, weights_DLW)
    pair_walk.give_up(sync)


def worth_two_threads(characters: int, weight: Weight) -> bool:
    """Whether a text of so many characters, and the largest weight of a layer, may gain by a second thread."""
    fits = weight.inputs % 2 == 0 and FEWEST_WEIGHT_BYTES <= weight.bytes <= MOST_WEIGHT_BYTES
    return fits and characters >= FEWEST_CHARACTERS and _cores() > 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _preparing_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="halves", initializer=lambda: torch.set_num_threads(1))


@cache
def _other_thread() -> ThreadPoolExecutor:
    flushes = bool(np.float32(1e-30) * np.float32(1e-10) == 0)

    def begin() -> None:  # as the thread that is helped
        torch.set_num_threads(1)
        torch.set_flush_denormal(flushes)

    return ThreadPoolExecutor(1, thread_name_prefix="pair", initializer=begin)
