"""The engine: rows that write the same alone and among others, that stop, pause and leave."""

import random
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoint import decode_checkpoint, encode_checkpoint
from models.checkpoint_header import CheckpointInfo
from models.config import Cell, ModelConfig, Normalization
from models.engine import Engine
from models.rnn import CharRNN
from models.rows import RowOutput, RowRequest, beginning
from models.sampling import SamplingConfig
from models.stepper import Stepper
from models.vocabulary import UnknownCharacter, Vocabulary

LONG = 128
ALPHABET = "\n abcdefghijklmnopqrstuvwxyz"


def tiny_model(
    cell: Cell = "gru", hidden_size: int = 24, num_layers: int = 2, normalization: Normalization = "none"
) -> tuple[CharRNN, CheckpointInfo]:
    """A real network with random weights, large enough that it writes no monotone text."""
    config = ModelConfig(cell, hidden_size, num_layers, embedding_size=8, normalization=normalization)
    torch.manual_seed(5)
    network = CharRNN(config, len(ALPHABET))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return network, CheckpointInfo(config, Vocabulary(ALPHABET), step=1)


def engine_of(network: CharRNN, info: CheckpointInfo, dtype: torch.dtype = torch.float32) -> Engine:
    return Engine(Stepper(network.eval(), dtype), info)


def tiny_engine(cell: Cell = "gru") -> Engine:
    return engine_of(*tiny_model(cell))


class Scripted:
    """Writes a given text, over and over, whatever it reads; a row's state counts the characters that it has read."""

    def __init__(self, text: str) -> None:
        self._ids = [ALPHABET.index(character) for character in text]
        self._states: list[Tensor] = []
        self.empty_state = torch.zeros(1, 1, 1)

    def join(self, state_LPH: Tensor, last_id: int, *_: object) -> None:
        self._states.append(state_LPH)

    def leave(self, place: int) -> Tensor:
        state_LPH, self._states[place] = self._states[place], self._states[-1]
        self._states.pop()
        return state_LPH

    def states(self, places: list[int]) -> np.ndarray:
        return np.stack([self._states[place].numpy() for place in places], axis=2)

    def write(self, steps: int) -> np.ndarray:
        drawn = []
        for _ in range(steps):
            drawn.append([self._ids[int(state) % len(self._ids)] for state in self._states])
            self._states = [state + 1 for state in self._states]
        return np.array(drawn)

    def read(self, state_LPH: Tensor, ids_T: np.ndarray) -> Tensor:
        return state_LPH + len(ids_T)

    def reader(self, _: int) -> Callable[[Tensor, np.ndarray], Tensor]:
        return self.read


INFO = CheckpointInfo(ModelConfig(hidden_size=1, embedding_size=1), Vocabulary(ALPHABET), step=1)


def scripted_engine(text: str) -> Engine:
    return Engine(Scripted(text), INFO)


class Timed(Scripted):
    """Writes and reads a character in an eighth of a millisecond, by its own clock, and remembers how many at once."""

    def __init__(self, text: str = "abc") -> None:
        super().__init__(text)
        self.now = 0.0
        self.wrote: list[int] = []
        self.has_read: list[int] = []

    def write(self, steps: int) -> np.ndarray:
        self.wrote.append(steps)
        self.now += steps / 8192
        return super().write(steps)

    def read(self, state_LPH: Tensor, ids_T: np.ndarray) -> Tensor:
        self.has_read.append(len(ids_T))
        self.now += len(ids_T) / 8192
        return super().read(state_LPH, ids_T)


def timed_engine() -> tuple[Engine, Timed]:
    stepper = Timed()
    return Engine(stepper, INFO, clock=lambda: stepper.now), stepper


def run(engine: Engine, limit: int = 100_000) -> dict[int, list[RowOutput]]:
    """Everything the engine says until no row has anything to do."""
    said: dict[int, list[RowOutput]] = defaultdict(list)
    for _ in range(limit):
        if not engine.busy:
            return said
        for output in engine.step():
            said[output.row_id].append(output)
    raise AssertionError("the engine did not come to an end")


def text_of(outputs: list[RowOutput]) -> str:
    return "".join(output.text for output in outputs)


def alone(request: RowRequest, cell: Cell = "gru") -> str:
    engine = tiny_engine(cell)
    engine.admit([1], request)
    return text_of(run(engine)[1])


def plain_loop(network: CharRNN, info: CheckpointInfo, prompt: str, characters: int) -> str:
    """The textbook's greedy loop, character by character."""
    state, text = network.initial_state(1), ""
    with torch.no_grad():
        for character in prompt:
            logits, state = network(torch.tensor([[info.vocabulary.encode(character)[0]]]), state)
        for _ in range(characters):
            drawn = int(logits[0, 0].argmax())
            text += info.vocabulary.decode([drawn])
            logits, state = network(torch.tensor([[drawn]]), state)
    return text


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
def test_a_row_writes_what_a_plain_loop_over_the_network_writes(cell: Cell) -> None:
    network, info = tiny_model(cell)
    engine = engine_of(network, info)
    engine.admit([1], RowRequest("the beginning", 60, sampling=SamplingConfig(temperature=0)))
    assert text_of(run(engine)[1]) == plain_loop(network.eval(), info, "the beginning", 60)


def some_requests(number: int) -> list[RowRequest]:
    rng = random.Random(2)
    return [
        RowRequest(
            prompt="".join(rng.choices(ALPHABET, k=rng.choice([0, 1, 5, LONG + 2, 3 * LONG]))),
            max_characters=rng.randint(1, 80),
            seed=rng.randrange(2**63),
            sampling=SamplingConfig(rng.choice([0.0, 0.7, 1.5]), rng.choice([0, 5]), rng.choice([0.9, 1.0])),
            stop=rng.choice([(), ("a",), ("th", "qu")]),
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_row_writes_the_same_alone_and_among_others_that_come_go_and_pause(cell: Cell, order: int) -> None:
    requests = some_requests(16)
    expected = [alone(request, cell) for request in requests]
    rng, engine = random.Random(order), tiny_engine(cell)
    said: dict[int, str] = defaultdict(str)
    waiting, running, stranger = list(range(16)), set[int](), 1000
    while waiting or running:
        event = rng.random()
        if waiting and event < 0.3:
            row_id = waiting.pop(rng.randrange(len(waiting)))
            engine.admit([row_id], requests[row_id], allowance=rng.choice([0, 3, 1000]))
            running.add(row_id)
        elif event < 0.4:  # strangers come, and leave in the middle
            engine.evict(stranger)
            stranger += 1
            engine.admit([stranger], RowRequest("stranger", seed=1))
        elif running and event < 0.6:
            engine.grant(rng.choice(sorted(running)), 7)
        for output in engine.step():
            said[output.row_id] += output.text
            if output.finished:
                running.discard(output.row_id)
    assert [said[i] for i in range(16)] == expected


def test_the_same_checkpoint_loaded_twice_writes_the_same() -> None:
    data = encode_checkpoint(*tiny_model())
    request = RowRequest("again", 100, seed=3)
    texts = set()
    for _ in range(2):
        engine = engine_of(*decode_checkpoint(data))
        engine.admit([1], request)
        texts.add(text_of(run(engine)[1]))
    assert len(texts) == 1


def test_another_seed_writes_another_text_and_an_empty_prompt_is_a_line_feed() -> None:
    assert alone(RowRequest("", 40, seed=1)) == alone(RowRequest("\n", 40, seed=1))
    assert alone(RowRequest("", 40, seed=1)) != alone(RowRequest("", 40, seed=2))
    assert beginning(Vocabulary(" a")) == " "
    assert beginning(Vocabulary("xyz")) == "x"


def test_a_row_ends_after_its_length_and_is_gone() -> None:
    engine = scripted_engine("abc")
    engine.admit([1], RowRequest(max_characters=5))
    outputs = run(engine)[1]
    assert outputs[0].text == "a", "the first at once, alone"
    assert text_of(outputs) == "abcab"
    assert [output.finished for output in outputs] == [None] * (len(outputs) - 1) + ["length"]
    assert len(engine) == 0


def test_no_part_of_a_stop_string_is_written_and_the_row_ends_before_it() -> None:
    engine = scripted_engine("to be or not to be that is ")
    engine.admit([1], RowRequest(stop=("be that", "zzz")))
    outputs = run(engine)[1]
    assert text_of(outputs) == "to be or not to "
    assert outputs[-1].finished == "stop"


def test_stop_strings_are_normalized_as_prompts_are() -> None:
    texts = []
    for stop in ("E", "e"):
        engine = engine_of(*tiny_model(normalization="letters"))
        engine.admit([1], RowRequest("a", seed=1, sampling=SamplingConfig(temperature=2.0), stop=(stop,)))
        outputs = run(engine)[1]
        assert outputs[-1].finished == "stop"
        texts.append(text_of(outputs))
    assert texts[0] == texts[1]
    assert "e" not in texts[0]


def test_what_may_become_a_stop_string_is_held_back_until_it_cannot() -> None:
    engine = scripted_engine("to be or not to be that is ")
    engine.admit([1], RowRequest(stop=("be that",)), allowance=1)
    shown = []
    for _ in range(7):
        for output in engine.step():
            shown.append(output.text)
            engine.grant(1, 1)
    assert shown == ["t", "o", " ", "be o"]


def test_what_is_held_back_when_the_length_ends_the_row_is_told_apart() -> None:
    engine = scripted_engine("an example ")
    engine.admit([1], RowRequest(max_characters=6, stop=("example",)))
    outputs = run(engine)[1]
    assert text_of(outputs) == "an "
    assert (outputs[-1].finished, outputs[-1].held_back) == ("length", "exa")


def test_a_prompt_is_normalized_and_an_unknown_character_is_refused_with_its_place() -> None:
    engine = engine_of(*tiny_model(normalization="letters"))
    engine.admit([1], RowRequest("Café, 1st!"))
    strict = tiny_engine()
    with pytest.raises(UnknownCharacter) as refused:
        strict.admit([2], RowRequest("abc€"))
    assert (refused.value.character, refused.value.position) == ("€", 3)
    assert len(strict) == 0
    assert not strict.busy


def test_a_row_is_set_aside_when_its_allowance_is_used_up_and_goes_on_when_granted_more() -> None:
    engine = scripted_engine("abcd")
    engine.admit([1], RowRequest(max_characters=10), allowance=3)
    assert text_of(run(engine)[1]) == "abc"
    assert not engine.busy
    assert engine.step() == []
    engine.grant(1, 2)
    assert text_of(run(engine)[1]) == "da"
    engine.grant(99, 5)
    engine.grant(1, 100)
    assert text_of(run(engine)[1]) == "bcdab"


def test_an_evicted_row_writes_nothing_more_and_evicting_again_is_harmless() -> None:
    engine = scripted_engine("abcd")
    engine.admit([1], RowRequest())
    engine.admit([2], RowRequest(max_characters=2))
    engine.step()
    engine.evict(1)
    engine.evict(1)
    assert [output.row_id for output in engine.step()] == [2]
    assert len(engine) == 0


def test_a_call_writes_for_two_milliseconds_the_first_character_alone() -> None:
    engine, stepper = timed_engine()
    engine.admit([1], RowRequest(max_characters=50))
    engine.step()
    engine.step()
    assert stepper.wrote == [1, 16]
    engine.admit([2], RowRequest(max_characters=21, stop=("zz",)))
    outputs = [*engine.step(), *engine.step(), *engine.step()]
    assert stepper.wrote == [1, 16, 1, 16, 4], "the first of the second alone, then to where it ends"
    assert [output.finished for output in outputs if output.row_id == 2] == [None, None, "length"]
    run(engine)
    assert sum(stepper.wrote) == 50


def test_a_call_ends_where_an_allowance_does_and_is_never_endless() -> None:
    stepper = Timed()
    engine = Engine(stepper, INFO, clock=lambda: 0.0)  # too coarse to see a step
    engine.admit([1], RowRequest(max_characters=1000), allowance=7)
    assert text_of(run(engine)[1]) == "abcabca"
    assert stepper.wrote == [1, 6]
    engine.grant(1, 500)
    run(engine)
    assert max(stepper.wrote) == 64


def test_what_was_drawn_after_a_stop_string_is_not_written() -> None:
    engine, stepper = timed_engine()
    engine.admit([1], RowRequest(stop=("bc",)))
    assert text_of(run(engine)[1]) == "a"
    assert stepper.wrote == [1, 16]


def test_a_prompt_is_read_for_a_share_of_what_others_write_meanwhile_and_readers_take_turns() -> None:
    engine, stepper = timed_engine()
    engine.admit([1], RowRequest("a" * 1000, 1))
    engine.step()
    engine.step()
    assert stepper.has_read == [1, 16], "two milliseconds, with nobody writing"
    engine.admit([2], RowRequest("b", 1000))
    for _ in range(3):
        engine.step()
    assert (stepper.wrote, stepper.has_read[2:]) == ([1, 16, 16], [1, 12, 12])
    engine.admit([3], RowRequest("c" * 31, 1000))
    said = {output.row_id for _ in range(7) for output in engine.step()}
    assert said == {2, 3}, "it did not wait for the long prompt"
    engine.evict(1)  # in the middle of its prompt
    stepper.has_read.clear()
    assert text_of(run(engine)[1]) == ""
    assert stepper.has_read == []


def test_text_before_an_answer_that_is_not_finite_is_told_and_none_after() -> None:
    engine, stepper = timed_engine()
    drawn = iter([[[1]], [[2], [3], [-1], [4]]])
    stepper.write = lambda _: np.array(next(drawn))  # type: ignore[method-assign]
    engine.admit([1], RowRequest(max_characters=5))
    assert engine.step() == [RowOutput(1, ALPHABET[1])]
    (output,) = engine.step()
    assert (output.text, output.finished) == (ALPHABET[2] + ALPHABET[3], None)
    assert output.failed
    assert len(engine) == 0


def test_a_long_prompt_gives_the_same_text_however_its_reading_is_interrupted() -> None:
    prompt = "".join(random.Random(1).choices(ALPHABET, k=5 * LONG + 17))
    engine = tiny_engine()
    engine.admit([1], RowRequest(prompt, 30, seed=9))
    for _ in range(3):
        engine.admit([2], RowRequest(prompt[:300], 2))
        engine.step()
        engine.evict(2)
    assert text_of(run(engine)[1]) == alone(RowRequest(prompt, 30, seed=9))


def test_an_answer_that_is_not_finite_fails_its_row_alone() -> None:
    network, info = tiny_model("rnn_relu")
    with torch.no_grad():
        network.embedding.weight[info.vocabulary.encode("z")[0]] = torch.inf
    engine = engine_of(network, info)
    engine.admit([1], RowRequest("z", 10))
    engine.admit([2], RowRequest("a", 1, sampling=SamplingConfig(0)))
    outputs = {output.row_id: output for output in engine.step()}
    assert outputs[1].failed
    assert outputs[2].finished == "length"
    assert len(engine) == 0
