"""Rows that go on from a state, samples that share a prompt, and prompts that are read once."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from models.config import Cell
from models.engine import FEWEST_KEPT, KEPT_EVERY, Engine
from models.prefix_cache import PrefixCache, update
from models.row_state import RowState
from models.rows import RowOutput, RowRequest
from models.sampling import SamplingConfig
from models.stepper import Stepper
from tests.unit.test_engine import ALPHABET, INFO, Timed, run, scripted_engine, text_of, tiny_engine, tiny_model

SAMPLING = SamplingConfig(1.3, 0, 0.98, 0.0, 1.2, 0.3, 0.05)


def written(engine: Engine, request: RowRequest) -> list[RowOutput]:
    engine.admit([1], request)
    return run(engine)[1]


def continued(engine: Engine, lengths: list[int], **settings: Any) -> list[RowOutput]:
    """The outputs of requests that go on from one another, each state through its bytes."""
    outputs: list[RowOutput] = []
    state = None
    for length in lengths:
        request = RowRequest(max_characters=length, start=state, keep_state=True, **settings)
        outputs += written(engine, request)
        if outputs[-1].finished == "stop":
            return outputs
        assert outputs[-1].state is not None
        state = RowState.from_bytes(outputs[-1].state.to_bytes())
        settings.pop("prompt", None)
    return outputs


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_a_text_that_goes_on_is_the_one_that_would_have_been_written_at_once(cell: Cell) -> None:
    engine, rng = tiny_engine(cell), random.Random(cell)
    for seed in range(6):
        settings: dict[str, Any] = {"seed": seed, "sampling": SAMPLING, "stop": ("ab", "ba", "qqq"), "forbidden": "z"}
        prompt = "".join(rng.choices(ALPHABET, k=rng.choice([0, 1, 60])))
        lengths = [rng.randint(1, 40) for _ in range(5)]
        whole = written(engine, RowRequest(prompt, sum(lengths), keep_state=True, **settings))
        parts = continued(engine, lengths, prompt=prompt, **settings)
        assert text_of(parts) == text_of(whole)
        assert (parts[-1].finished, parts[-1].held_back) == (whole[-1].finished, whole[-1].held_back)
        ends = parts[-1].state, whole[-1].state
        assert ends[0] is not None
        assert ends[1] is not None
        assert ends[0].to_bytes() == ends[1].to_bytes()


def test_a_stop_string_is_found_across_the_border_and_no_part_of_it_is_shown() -> None:
    outputs = continued(scripted_engine("an example "), [6, 20], stop=("example",))
    assert text_of(outputs) == "an "
    assert outputs[-1].finished == "stop"


def test_held_back_text_is_shown_when_it_cannot_become_a_stop_string_any_more() -> None:
    engine = scripted_engine("an exact ")
    first = written(engine, RowRequest(max_characters=6, stop=("example",), keep_state=True))[-1]
    rest = written(engine, RowRequest(max_characters=3, stop=("example",), start=first.state, keep_state=True))
    assert text_of(rest) == "exact "
    others = written(engine, RowRequest(max_characters=3, stop=("xa",), start=first.state, keep_state=True))
    assert (text_of(others), others[-1].finished) == ("e", "stop")


@pytest.mark.parametrize("stop", ["e", "c", "bcdefg", "abcdefghij"])
def test_the_state_after_a_stop_string_is_the_one_after_its_last_character(stop: str) -> None:
    """Whatever was drawn after it in the same call."""
    text = "abcdefghij"
    ended = written(scripted_engine(text), RowRequest(stop=(stop,), keep_state=True))[-1]
    assert ended.state is not None
    assert ended.state.last_id == ALPHABET.index(stop[-1])
    assert ended.state.position == text.index(stop) + len(stop)
    on = written(scripted_engine(text), RowRequest(max_characters=5, start=ended.state))
    assert text_of(on) == (text * 2)[ended.state.position :][:5]


def test_penalties_forget_what_was_drawn_after_the_stop() -> None:
    engine = tiny_engine()
    for seed in range(8):
        request = {"seed": seed, "sampling": SAMPLING, "stop": ("a",)}
        ended = written(engine, RowRequest(max_characters=400, keep_state=True, **request))[-1]
        assert ended.finished == "stop"
        assert ended.state is not None
        assert ended.state.tally_V is not None
        assert int(ended.state.tally_V.sum()) == 4 * ended.state.position


def test_a_prompt_is_read_after_the_text_that_goes_on() -> None:
    engine = tiny_engine()
    first = written(engine, RowRequest("once", 20, seed=1, keep_state=True))
    on = written(engine, RowRequest(" upon", 30, seed=1, start=first[-1].state))
    greedy = SamplingConfig(temperature=0)
    again = [
        written(engine, RowRequest(" upon", 30, start=first[-1].state, sampling=greedy)),
        written(engine, RowRequest("once" + text_of(first) + " upon", 30, sampling=greedy)),
    ]
    assert len(text_of(on)) == 30
    assert text_of(again[0]) == text_of(again[1])


def test_a_state_of_another_network_is_refused() -> None:
    state = written(tiny_engine("lstm"), RowRequest(max_characters=1, keep_state=True))[-1].state
    with pytest.raises(ValueError, match="not of this network"):
        tiny_engine("gru").admit([1], RowRequest(start=state))


def test_what_may_be_written_is_what_is_allowed_and_not_forbidden() -> None:
    engine = tiny_engine()
    hot = SamplingConfig(5.0)
    assert set(text_of(written(engine, RowRequest(max_characters=300, allowed="abc€", sampling=hot)))) == set("abc")
    text = text_of(written(engine, RowRequest(max_characters=300, allowed="abc", forbidden="b€", sampling=hot)))
    assert set(text) == set("ac")
    for nothing in (RowRequest(allowed="€"), RowRequest(allowed=""), RowRequest(forbidden=ALPHABET)):
        with pytest.raises(ValueError, match="none may be written"):
            engine.admit([2], nothing)


def test_samples_share_the_reading_and_have_noise_of_their_own() -> None:
    stepper = Timed()
    engine = Engine(stepper, INFO, clock=lambda: stepper.now)
    engine.admit([1, 2, 3], RowRequest("x" * 100, 4))
    run(engine)
    assert sum(stepper.has_read) == 99
    real = tiny_engine()
    real.admit([1, 2, 3], RowRequest("once", 60, seed=5))
    texts = [text_of(outputs) for _, outputs in sorted(run(real).items())]
    assert len(set(texts)) == 3
    assert texts[0] == text_of(written(tiny_engine(), RowRequest("once", 60, seed=5)))


def test_a_sample_that_is_evicted_while_the_prompt_is_read_leaves_the_others() -> None:
    engine = tiny_engine()
    engine.admit([1, 2], RowRequest("x" * 3000, 5, seed=5))
    engine.evict(1)
    assert list(run(engine)) == [2]
    engine.admit([1, 2], RowRequest("y" * 3000, 5, seed=5))
    engine.evict(1)
    engine.evict(2)
    assert not engine.busy
    assert len(engine) == 0


def test_a_prompt_that_was_read_is_not_read_again_nor_what_it_begins_with() -> None:
    stepper = Timed()
    engine = Engine(stepper, INFO, clock=lambda: stepper.now)

    def read_of(prompt: str) -> int:
        stepper.has_read.clear()
        engine.admit([1], RowRequest(prompt, 2))
        run(engine)
        return sum(stepper.has_read)

    first = "ab" * 100
    assert read_of(first) == 199
    assert read_of(first) == 0
    assert read_of(first + "xyz") == 3, "all but the last of the new, and the last of the old"
    assert read_of("b" + first) == 200
    assert read_of("abc") == 2
    assert read_of("abc") == 2, "so short that it is not kept"
    long = "c" * (2 * KEPT_EVERY + 500)
    read_of(long)
    assert read_of("c" * (KEPT_EVERY + 1) + "d" * 10) == 10


def test_two_who_ask_for_the_same_prompt_at_once_wait_for_one_reading() -> None:
    stepper = Timed()
    engine = Engine(stepper, INFO, clock=lambda: stepper.now)
    engine.admit([1], RowRequest("x" * 3000, 3))
    engine.step()
    engine.admit([2], RowRequest("x" * 3000, 3))
    assert len({text_of(outputs) for outputs in run(engine).values()}) == 1
    assert sum(stepper.has_read) == 2999


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_text_is_the_same_whether_its_prompt_was_kept_or_read(cell: Cell) -> None:
    network, info = tiny_model(cell)
    prompt = "the quick brown fox " * (KEPT_EVERY // 10)
    kept = Engine(Stepper(network.eval(), torch.float32), info)
    texts = set()
    for cut in (len(prompt) // 2, len(prompt) - 1, len(prompt), len(prompt)):
        text = text_of(written(kept, RowRequest(prompt[:cut], 50, seed=cut)))
        fresh = Engine(Stepper(network.eval(), torch.float32), info)
        assert text == text_of(written(fresh, RowRequest(prompt[:cut], 50, seed=cut)))
        texts.add(text)
    assert len(texts) == 3


def test_the_cache_keeps_the_most_recently_used_within_its_bounds() -> None:
    cache = PrefixCache(most_states=3, most_bytes=10_000)
    ids = np.random.default_rng(0).integers(0, 50, 200)

    def keep(length: int, numbers: int = 4) -> None:
        hasher = PrefixCache().longest(ids[:0]).hasher
        update(hasher, ids[:length])
        cache.keep(hasher, length, torch.zeros(1, 1, numbers))

    for length in (40, 60, 80):
        keep(length)
    assert cache.longest(ids[:70]).length == 60
    assert cache.longest(ids).length == 80
    assert cache.longest(ids[:59]).length == 40  # used, so that 60 goes first
    keep(100)
    assert len(cache) == 3
    assert cache.longest(ids[:70]).length == 40
    keep(120, numbers=2400)
    assert cache.longest(ids).length == 120
    keep(121, numbers=2400)
    assert len(cache) == 1
    assert cache.longest(ids[:120]).length == 0


def test_short_prompts_are_worth_nothing() -> None:
    engine = tiny_engine()
    written(engine, RowRequest("x" * FEWEST_KEPT, 1))
    assert len(engine._prefixes) == 0
    written(engine, RowRequest("x" * (FEWEST_KEPT + 1), 1))
    assert len(engine._prefixes) == 1
