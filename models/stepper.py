"""The states of rows of a folded network, and one more character for each of them in one compiled call.

Knows no texts and no requests. Invariants: rows 0 to `len` are in use; what a row writes is the same, to the bit,
whatever other rows there are and wherever it stands. Shape suffixes as in models.inference.
"""

import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import inference, likelihood, pair_reader
from models.config import ModelConfig, Precision
from models.folded import MOST_TRIED_ROWS, Folded, folded_bytes
from models.padded_stepper import PaddedStepper
from models.pair_reader import PairReader, Read, prepare, worth_two_threads
from models.precision import resolve_precision
from models.rnn import CharRNN
from models.row_arrays import RowArrays
from models.sampling import SamplingConfig
from models.torch_calls import telling_refusals

_CELLS = {
    "rnn_tanh": inference.TANH,
    "rnn_relu": inference.RELU,
    "gru": inference.GRU,
    "lstm": inference.LSTM,
}
FEWEST_PLACES = 4


class Stepper:
    """The rows of one network on the CPU. All methods belong to one thread.

    Raises RuntimeError, here and where characters are read and written, when torch refuses a product.
    """

    def __init__(self, network: CharRNN, dtype: torch.dtype) -> None:
        self._cell = _CELLS[network.config.cell]
        self._folded = Folded(network, dtype)
        self._make_room(1)
        self._work_V = np.empty(network.vocabulary_size)
        self._work_4 = np.empty(4 * network.config.hidden_size, np.float32)
        self._powers_V = np.empty(network.vocabulary_size, np.float32)
        self._rows = RowArrays.of(network.initial_state(FEWEST_PLACES), dtype)
        self._reader = RowArrays.of(network.initial_state(1), dtype)
        self._empty_LPH = network.initial_state(1)[:, :, 0]
        self._length = 0
        self._last_pair: weakref.ref[PairReader] | None = None
        self._tallies: list[NDArray[np.int32] | None] = []  # as long as their addresses are in use

    def __len__(self) -> int:
        return self._length

    @property
    def dtype(self) -> torch.dtype:
        """Of the products, but for the output layer's."""
        return self._folded.dtype

    @property
    def bytes(self) -> int:
        """Memory of the network."""
        return self._folded.bytes

    @property
    def bytes_per_character(self) -> int:
        """That are read for one row's next character."""
        return self._folded.bytes_per_character

    @property
    def empty_state(self) -> Tensor:
        """That of a row which has read nothing [L, P, H]."""
        return self._empty_LPH

    def join(
        self,
        state_LPH: Tensor,
        last_id: int,
        sampling: SamplingConfig,
        noise_key: int,
        position: int,
        tally_V: NDArray[np.int32] | None = None,
    ) -> None:
        """A row more, at the end. `last_id` is what it reads before it writes the character at `position`.

        A tally (models.sampling) stays the caller's; written characters are added to it.
        """
        place = self._length
        if place == len(self._rows.ids_R):
            self._rows = self._rows.doubled()
        rows = self._rows
        self._length += 1
        rows.put_state(place, state_LPH)
        rows.ids_R[place], rows.keys_R[place], rows.positions_R[place] = last_id, noise_key, position
        # Below the normal numbers a temperature is 0 to a processor that flushes denormals, as that of generation.
        temperature = max(sampling.temperature, sys.float_info.min) if sampling.temperature else 0.0
        penalties = sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty
        rows.numbers_R6[place] = temperature, sampling.top_p, sampling.min_p, *penalties
        rows.top_k_R[place] = sampling.top_k
        rows.tallies_R[place] = 0 if tally_V is None else tally_V.ctypes.data
        self._tallies.append(tally_V)

    def leave(self, place: int) -> Tensor:
        """The row at `place` is gone; what was the last row is there now. Its state [L, P, H]."""
        state_LPH = self._rows.state(place)
        self._length -= 1
        self._rows.move(self._length, place)
        self._tallies[place] = self._tallies[-1]
        self._tallies.pop()
        return state_LPH

    def states(self, places: Sequence[int]) -> NDArray[np.float32]:
        """A copy of some rows' states as they are now [L, P, R, H]."""
        return self._rows.states_LPRH[:, :, list(places)]

    def write(self, steps: int) -> NDArray[np.int64]:
        """The ids of the next characters of all rows [T, R]; -1 where the network answers nothing finite, after which
        what a row writes means nothing."""
        drawn_TR, rows = np.empty((steps, self._length), np.int64), self._rows
        network = self._network(rows, len(rows.ids_R))
        for first, last in self._together(self._length):
            with telling_refusals():
                inference.write_characters(
                    *(self._cell, rows.ids_R, first, last),
                    *(rows.states_LPRH, self._folded.output.numbers, rows.numbers_R6),
                    *(rows.top_k_R, rows.keys_R, rows.positions_R, rows.tallies_R, drawn_TR),
                    *(self._logits_RV, self._work_V, *network),
                )
        return drawn_TR

    def read(self, state_LPH: Tensor, ids_T: NDArray[np.int64]) -> Tensor:
        """The state [L, P, H] after more characters, of which there may be none."""
        self._reader.put_state(0, state_LPH)
        with telling_refusals():
            inference.read_text(self._cell, ids_T, *self._network(self._reader, 1))
        return self._reader.state(0)

    def reader(self, characters: int) -> Read:
        """What reads as `read` does, the fastest way for a text of so many characters in pieces."""
        if not worth_two_threads(characters, self._folded.recurrent[0]):
            return self.read
        pair = self._last_pair() if self._last_pair is not None else None
        halves = pair.halves if pair is not None else prepare(self._folded.recurrent, self._folded.inputs)
        pair = PairReader(self._cell, self._folded.table_VG, halves, self.read)
        self._last_pair = weakref.ref(pair)
        return pair

    def lanes(self, number: int) -> RowArrays:
        """So many texts that are to be scored side by side, of which nothing has been read."""
        L, P, H = self._empty_LPH.shape
        return RowArrays.of(torch.zeros(L, P, number, H), self.dtype)

    def lanes_from(self, states_LPRH: NDArray[np.float32]) -> RowArrays:
        """Texts of which has been read what led to these states. The array is theirs from now on."""
        return RowArrays.of(torch.from_numpy(states_LPRH), self.dtype)

    def states_of(self, lanes: RowArrays) -> NDArray[np.float32]:
        """Where lanes stand [L, P, R, H]; as long as they are not read on."""
        return lanes.states_LPRH

    def forget(self, lanes: RowArrays, place: int) -> None:
        """Of the lane at `place` nothing has been read."""
        lanes.put_state(place, self._empty_LPH)

    def read_lanes(self, lanes: RowArrays, ids_TR: NDArray[np.int64]) -> None:
        """Each lane reads its column."""
        network = self._network(lanes, ids_TR.shape[1])
        for first, last in self._together(ids_TR.shape[1]):
            with telling_refusals():
                likelihood.read_lanes(self._cell, ids_TR, first, last, *network)

    def score_lanes(
        self,
        lanes: RowArrays,
        ids_TR: NDArray[np.int64],
        scores_TR: NDArray[np.float32],
        top_ids_TRK: NDArray[np.int32],
        top_scores_TRK: NDArray[np.float32],
    ) -> None:
        """Each lane reads its column but the last character. Filled in is the score of what follows each (its
        log-probability in nats, -9999 or more; NaN where the network answers nothing finite), and the likeliest
        alternatives, of which there may be none, and no more than the vocabulary has."""
        network = self._network(lanes, ids_TR.shape[1])
        for first, last in self._together(ids_TR.shape[1]):
            with telling_refusals():
                likelihood.score_lanes(
                    *(self._cell, ids_TR, first, last, lanes.states_LPRH, self._folded.output.numbers),
                    *(scores_TR, top_ids_TRK, top_scores_TRK, self._logits_RV, self._powers_V, *network),
                )

    def _together(self, rows: int) -> Iterator[tuple[int, int]]:
        """The rows whose products are made at once: first and before last."""
        number = self._most_together
        return ((first, min(first + number, rows)) for first in range(0, rows, number))

    @property
    def _most_together(self) -> int:
        return MOST_TRIED_ROWS if self._folded.row_invariant else 1

    def _network(self, rows: RowArrays, number: int) -> tuple[NDArray[Any], ...]:
        """What models.inference calls a network, with room to work in for so many rows, as far as they go at once."""
        if len(self._logits_RV) < min(number, self._most_together):
            self._make_room(min(number, self._most_together))
        weights = self._folded.table_VG, self._folded.recurrent_LW, self._folded.inputs_LW
        return *weights, rows.states_LPRH, rows.narrow_LRH, self._sums_2RG, self._work_4

    def _make_room(self, rows: int) -> None:
        V, G = self._folded.table_VG.shape
        self._sums_2RG, self._logits_RV = np.empty((2, rows, G), np.float32), np.empty((rows, V), np.float32)


def compile_first(precision: Precision = "auto") -> None:
    """Have everything compiled, which takes fifteen seconds once on a machine, before a stream waits for it."""
    dtype = _type_on_cpu(precision)
    stepper = Stepper(CharRNN(ModelConfig(hidden_size=1, embedding_size=1), vocabulary_size=1), dtype)
    state_LPH = stepper.read(stepper.empty_state, np.zeros(1, np.int64))
    stepper.join(state_LPH, 0, SamplingConfig(), 0, 0)
    stepper.write(1)
    lanes, ids_TR = stepper.lanes(1), np.zeros((2, 1), np.int64)
    stepper.read_lanes(lanes, ids_TR)
    top_ids_TRK, top_scores_TRK = np.empty((1, 1, 1), np.int32), np.empty((1, 1, 1), np.float32)
    stepper.score_lanes(lanes, ids_TR, np.empty((1, 1), np.float32), top_ids_TRK, top_scores_TRK)
    pair_reader.compile_first(dtype)


def stepper_of(network: CharRNN, precision: Precision = "auto") -> Stepper | PaddedStepper:
    """The stepper for the device that the network is on. `precision` is of the CPU; another device takes float32."""
    if _device_of(network).type != "cpu":
        return PaddedStepper(network)
    return Stepper(network, _type_on_cpu(precision))


def stepper_bytes(network: CharRNN, precision: Precision = "auto") -> int:
    """Memory of the network that `stepper_of` would take beside it; on another device none, it takes the network."""
    return folded_bytes(network, _type_on_cpu(precision)) if _device_of(network).type == "cpu" else 0


def _device_of(network: CharRNN) -> torch.device:
    return next(network.parameters()).device


def _type_on_cpu(precision: Precision) -> torch.dtype:
    return torch.bfloat16 if resolve_precision(precision, "cpu") == "bfloat16" else torch.float32
