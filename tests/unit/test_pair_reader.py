"""Two threads read a text to the same bits as one, or leave it to one."""

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch

from models import pair_reader, pair_walk, torch_calls
from models.config import CELLS, ModelConfig
from models.pair_reader import FIRST_REST, PairReader, prepare, worth_two_threads
from models.precision import multiplies_bfloat16
from models.rnn import CharRNN
from models.stepper import Stepper

TYPES = [torch.float32] + [torch.bfloat16] * multiplies_bfloat16("cpu")
IDS = np.random.default_rng(0).integers(0, 30, 300)


def stepper_of(cell: str, hidden_size: int = 128, num_layers: int = 2, dtype: torch.dtype = torch.float32) -> Stepper:
    torch.manual_seed(1)
    config = ModelConfig(cell, hidden_size, num_layers, embedding_size=8)  # type: ignore[arg-type]
    return Stepper(CharRNN(config, 30).eval(), dtype)


def pair_of(one: Stepper, clock: Any = None) -> PairReader:
    halves = prepare(one._folded.recurrent, one._folded.inputs)
    if not halves.result().usable:
        pytest.skip("here products by halves have other bits: one thread reads")
    return PairReader(one._cell, one._folded.table_VG, halves, one.read, *([clock] if clock else []))


def together(pair: PairReader, state_LPH: torch.Tensor, ids: np.ndarray) -> torch.Tensor:
    """By two threads, however long each is set aside for: the machine may be busy."""
    pair._most_spins = 10**12
    after_LPH = pair._read_together(pair.halves.result(), state_LPH, ids)
    assert after_LPH is not None
    return after_LPH


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_two_threads_read_to_the_same_bits_as_one(cell: str, num_layers: int, dtype: torch.dtype) -> None:
    one = stepper_of(cell, num_layers=num_layers, dtype=dtype)
    pair, expected, state_LPH = pair_of(one), one.empty_state, one.empty_state
    for begin, end in ((0, 2), (2, 5), (5, 40), (40, 42), (42, 90)):
        expected = one.read(expected, IDS[begin:end])
        state_LPH = together(pair, state_LPH, IDS[begin:end])
        assert state_LPH.equal(expected)
    assert one.empty_state.eq(0).all(), "what is given is not written to"


def test_whatever_happens_the_state_is_the_same() -> None:
    one = stepper_of("lstm")
    pair, expected, state_LPH = pair_of(one), one.empty_state, one.empty_state
    for begin in range(0, 300, 5):
        expected = one.read(expected, IDS[begin : begin + 5])
        state_LPH = pair(state_LPH, IDS[begin : begin + 5])
        assert state_LPH.equal(expected)


def test_a_half_that_is_alone_gives_up() -> None:
    one = stepper_of("gru")
    halves = pair_of(one).halves.result()
    states = one.empty_state.clone().numpy(), np.zeros((2, 2, 1, 128), np.float32)
    weights = one._folded.table_VG, halves.recurrent_DLW, halves.inputs_DLW
    sync = np.zeros(pair_walk.SYNC_NUMBERS, np.int64)
    assert not pair_walk.read_half(one._cell, IDS, 0, 1000, sync, *states, *weights)
    assert not pair_walk.read_half(one._cell, IDS, 1, 10**12, sync, *states, *weights), "it is told, and ends"


class NeverThere:
    """A thread that ends without having done anything."""

    def submit(self, *_: object) -> "Future[bool]":
        future: Future[bool] = Future()
        future.set_result(False)
        return future


def test_a_trial_in_vain_is_read_by_one_and_the_next_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    one = stepper_of("gru")
    pair, trials, read = pair_of(one), [], 0
    monkeypatch.setattr(pair_reader, "_other_thread", NeverThere)
    real = pair._read_together

    def watched(*arguments: Any) -> Any:
        trials.append(read)
        return real(*arguments)

    monkeypatch.setattr(pair, "_read_together", watched)
    expected = state_LPH = one.empty_state
    for read in range(5 * FIRST_REST):
        state_LPH, expected = pair(state_LPH, IDS[read : read + 2]), one.read(expected, IDS[read : read + 2])
        assert state_LPH.equal(expected)
    assert trials == [1, 2 + FIRST_REST, 3 + 3 * FIRST_REST]


def test_two_threads_that_are_slower_than_one_rest_as_well() -> None:
    now, one = [0.0], stepper_of("gru")

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    pair = pair_of(one, clock)
    pair._most_spins = 10**12
    pair(one.empty_state, IDS[:2])  # alone: a second
    pair(one.empty_state, IDS[:2])  # as long: no worse
    assert pair._resting == 0
    pair._alone_seconds = 0.25
    pair(one.empty_state, IDS[:2])
    assert pair._resting == FIRST_REST


def test_preparations_that_failed_leave_the_reading_to_one() -> None:
    one, failed = stepper_of("gru"), Future[Any]()
    failed.set_exception(MemoryError())
    pair = PairReader(one._cell, one._folded.table_VG, failed, one.read)
    for _ in range(3):
        assert pair(one.empty_state, IDS[:9]).equal(one.read(one.empty_state, IDS[:9]))


def test_readers_of_one_network_share_the_preparations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_reader, "_cores", lambda: 2)
    one = stepper_of("lstm", 512, 1)
    first, second = one.reader(100_000), one.reader(100_000)
    assert isinstance(first, PairReader)
    assert isinstance(second, PairReader)
    assert first.halves is second.halves


def test_another_thread_that_has_not_begun_is_not_waited_for() -> None:
    one, go_on = stepper_of("gru"), threading.Event()
    pair = pair_of(one)
    busy = pair_reader._other_thread().submit(go_on.wait, 60)
    try:
        assert pair._read_together(pair.halves.result(), one.empty_state, IDS[:20]) is None
    finally:
        go_on.set()
        busy.result()


def test_an_error_in_one_half_ends_the_other_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    one = stepper_of("gru")
    pair = pair_of(one)
    halves = pair.halves.result()
    halves.recurrent_DLW[1, 1, torch_calls.INPUTS] = 0  # the second half's weight of the second layer takes nothing
    pair._most_spins = 10**12
    with pytest.raises(ValueError, match="rows of another length"):
        pair._read_together(halves, one.empty_state, IDS[:20])


def test_small_networks_and_short_texts_are_read_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_reader, "_cores", lambda: 2)
    large, small = stepper_of("lstm", 512, 1)._folded.recurrent[0], stepper_of("lstm", 64, 1)._folded.recurrent[0]
    assert worth_two_threads(100_000, large)
    assert not worth_two_threads(100, large)
    assert not worth_two_threads(100_000, small)
    assert not worth_two_threads(100_000, stepper_of("lstm", 511, 1)._folded.recurrent[0])
    monkeypatch.setattr(pair_reader, "_cores", lambda: 1)
    assert not worth_two_threads(100_000, large)
