"""Rows that tell scores, and that show their prompt: the network's own numbers, and the text as it would be anyway."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from models.engine import Engine
from models.padded_stepper import PaddedStepper
from models.rnn import CharRNN
from models.rows import SHOWN_AT_ONCE, RowOutput, RowRequest
from models.sampling import SamplingConfig
from models.scores import CharacterScore
from models.vocabulary import UnknownId
from tests.unit.test_engine import (
    ALPHABET,
    INFO,
    Scripted,
    engine_of,
    run,
    scripted_engine,
    tiny_engine,
    tiny_model,
)

PROMPT = "to be or not"
WILD = SamplingConfig(temperature=0.4, top_k=5, top_p=0.9, repetition_penalty=1.5, frequency_penalty=0.5)


def text_of(outputs: Sequence[RowOutput]) -> str:
    return "".join(output.text for output in outputs)


def scores_of(outputs: Sequence[RowOutput]) -> list[CharacterScore | None]:
    return [score for output in outputs for score in output.scores]


def written(request: RowRequest, engine: Engine | None = None) -> list[RowOutput]:
    """What one row of the tiny model says."""
    engine = tiny_engine() if engine is None else engine
    engine.admit([1], request)
    return run(engine)[1]


def own_scores(network: CharRNN, text: str) -> np.ndarray:
    """Log-probabilities of all characters after each of the text, by the network itself."""
    ids = torch.tensor([[ALPHABET.index(character) for character in text]])
    with torch.no_grad():
        logits_1TV, _ = network(ids, network.initial_state(1))
    own: np.ndarray = logits_1TV[0].double().log_softmax(1).numpy()
    return own


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("sampling", [SamplingConfig(), WILD, SamplingConfig(temperature=0)])
def test_scores_are_of_the_networks_own_distribution_however_it_is_drawn_from(
    cell: str, sampling: SamplingConfig
) -> None:
    network, info = tiny_model(cell)  # type: ignore[arg-type]
    request = RowRequest(PROMPT, 40, seed=3, sampling=sampling, echo=True, alternatives=4, forbidden="e")
    said = written(request, engine_of(network, info))

    text, scores = text_of(said), scores_of(said)
    own = own_scores(network, text)
    assert scores[0] is None
    for place, score in enumerate(scores[1:]):
        assert score is not None
        assert score[0] == pytest.approx(own[place][ALPHABET.index(text[place + 1])], abs=2e-3)
        likeliest = np.argsort(-own[place], kind="stable")[:4]
        assert [character for character, _ in score[1]] == [ALPHABET[drawn] for drawn in likeliest]
        assert [of for _, of in score[1]] == pytest.approx(own[place][likeliest], abs=2e-3)
    assert len(scores) == len(text) == len(PROMPT) + 40


@pytest.mark.parametrize("alternatives", [None, 0, 3, 1000])
def test_the_text_is_the_one_that_would_be_written_anyway(alternatives: int | None) -> None:
    plain = text_of(written(RowRequest(PROMPT, 100, seed=3, sampling=WILD)))
    asked = RowRequest(PROMPT, 100, seed=3, sampling=WILD, alternatives=alternatives)
    echoed = RowRequest(PROMPT, 100, seed=3, sampling=WILD, alternatives=alternatives, echo=True)

    said = written(asked)
    assert text_of(said) == plain
    assert text_of(written(echoed)) == PROMPT + plain
    assert len(scores_of(said)) == (0 if alternatives is None else 100)
    for score in scores_of(said):
        assert score is not None
        assert len(score[1]) == min(alternatives or 0, len(ALPHABET))


def test_among_others_a_row_tells_the_same_scores() -> None:
    request = RowRequest(PROMPT, 50, seed=3, alternatives=2, echo=True)
    alone = written(request)
    engine = tiny_engine()
    for other in range(10, 40):
        engine.admit([other], RowRequest("the", other, seed=other, alternatives=other % 3 or None))
    engine.admit([1], request)
    among = run(engine)

    assert text_of(among[1]) == text_of(alone)
    assert scores_of(among[1]) == scores_of(alone)
    assert [len(scores_of(among[other])) for other in (10, 12)] == [10, 0]


def test_on_any_device_the_scores_are_the_same_to_the_rounding() -> None:
    network, info = tiny_model()
    request = RowRequest(PROMPT, 30, sampling=SamplingConfig(temperature=0), echo=True, alternatives=2)
    folded = written(request, engine_of(network, info))
    padded = written(request, Engine(PaddedStepper(network), info))

    assert text_of(padded) == text_of(folded)
    for one, other in zip(scores_of(padded)[1:], scores_of(folded)[1:], strict=True):
        assert one is not None
        assert other is not None
        assert one[0] == pytest.approx(other[0], abs=2e-3)


class Unasked(Scripted):
    """Has no more done to it than it takes to write."""

    def states(self, places: list[int]) -> np.ndarray:
        raise AssertionError("nobody asked")


def test_a_row_that_tells_no_scores_has_nothing_more_done() -> None:
    engine = Engine(Unasked("abc"), INFO)
    assert text_of(written(RowRequest("a" * 100, 500, echo=True), engine)) == "a" * 100 + ("abc" * 200)[99 % 3 :][:500]


def test_scores_are_of_what_is_shown_and_never_of_a_stop_string() -> None:
    plain = text_of(written(RowRequest(PROMPT, 200, seed=3)))
    stop = plain[120:125]
    end = plain.index(stop)
    said = written(RowRequest(PROMPT, 200, seed=3, stop=(stop, plain[30:33] + "€"), alternatives=1))

    assert said[-1].finished == "stop"
    assert text_of(said) == plain[:end]
    assert all(len(output.text) + len(output.held_back) == len(output.scores) for output in said)


def test_what_is_held_back_at_the_end_has_its_scores_too() -> None:
    plain = text_of(written(RowRequest(PROMPT, 50, seed=3)))
    said = written(RowRequest(PROMPT, 50, seed=3, stop=(plain[47:] + "?",), alternatives=0))

    assert said[-1].finished == "length"
    assert said[-1].held_back == plain[47:]
    assert len(scores_of(said)) == 50


def test_a_long_prompt_is_shown_piece_by_piece_within_what_is_granted() -> None:
    engine, prompt = tiny_engine(), "to be or not " * 300
    engine.admit([1], RowRequest(prompt, 10, echo=True, alternatives=1), allowance=1500)
    granted, said = 1500, []
    while not (said and said[-1].finished):
        while engine.busy:
            outputs = engine.step()
            assert all(len(output.text) <= SHOWN_AT_ONCE for output in outputs)
            said += outputs
            assert len(text_of(said)) <= granted
        engine.grant(1, 700)
        granted += 700

    assert text_of(said).startswith(prompt)
    assert len(text_of(said)) == len(scores_of(said)) == len(prompt) + 10
    assert text_of(said) == prompt + text_of(written(RowRequest(prompt, 10)))
    assert len(engine) == 0


def test_a_row_that_shows_its_prompt_can_be_evicted() -> None:
    engine = tiny_engine()
    engine.admit([1, 2], RowRequest("to be or not " * 300, 10, echo=True))
    begun: set[int] = set()
    while begun != {1, 2}:
        begun |= {output.row_id for output in engine.step()}
    engine.evict(1)
    rest = run(engine)
    assert 1 not in rest
    assert rest[2][-1].finished == "length"


@pytest.mark.parametrize(("prompt", "echo"), [(PROMPT, True), (PROMPT, False), ("", True), ("t", True)])
def test_with_no_characters_to_write_only_the_prompt_is_shown(prompt: str, echo: bool) -> None:
    said = written(RowRequest(prompt, 0, echo=echo, alternatives=1))

    assert text_of(said) == (prompt if echo else "")
    assert said[-1].finished == "length"
    assert scores_of(said)[:1] == ([None] if prompt and echo else [])
    assert len(scores_of(said)) == len(text_of(said))


def test_a_prompt_of_indices_is_read_as_its_characters_and_never_normalized() -> None:
    ids = tuple(ALPHABET.index(character) for character in PROMPT)
    # How a text is cut into pieces is the clock's: a step writes for some milliseconds.
    of_ids = text_of(written(RowRequest(prompt_ids=ids, max_characters=30, echo=True, seed=2)))
    assert of_ids == text_of(written(RowRequest(PROMPT, 30, echo=True, seed=2)))
    assert of_ids.startswith(PROMPT)
    letters = engine_of(*tiny_model(normalization="letters"))
    space = ALPHABET.index(" ")
    assert text_of(written(RowRequest(prompt_ids=(space, space), max_characters=0, echo=True), letters)) == "  "


@pytest.mark.parametrize("ids", [(0, -1), (0, len(ALPHABET)), (2**31 - 1,)])
def test_an_index_of_no_character_is_refused(ids: tuple[int, ...]) -> None:
    engine = tiny_engine()
    with pytest.raises(UnknownId, match="is no character's index: the model knows 28 characters, 0 to 27"):
        engine.admit([1], RowRequest(prompt_ids=ids))
    assert len(engine) == 0


def test_the_length_of_a_prompt_is_told_as_the_network_reads_it() -> None:
    letters = engine_of(*tiny_model(normalization="letters"))
    assert letters.admit([1], RowRequest("Café,  1st!")) == len("cafe st ")
    assert letters.admit([2], RowRequest("")) == 0
    assert tiny_engine().admit([1], RowRequest("Hé", skip_unknown=True)) == 0


def test_samples_are_numbered_on_from_where_it_is_said() -> None:
    engine = tiny_engine()
    engine.admit([1, 2, 3, 4], RowRequest(PROMPT, 30, seed=9))
    together = run(engine)
    engine.admit([5, 6], RowRequest(PROMPT, 30, seed=9, first_sample=2))
    apart = run(engine)
    assert [text_of(apart[row]) for row in (5, 6)] == [text_of(together[row]) for row in (3, 4)]


def test_what_goes_on_from_a_state_echoes_nothing() -> None:
    [ended] = written(RowRequest(max_characters=1, keep_state=True))
    for wish in (RowRequest(start=ended.state, echo=True), RowRequest(start=ended.state, alternatives=0)):
        with pytest.raises(ValueError, match="goes on from a state"):
            tiny_engine().admit([1], wish)


def test_a_score_is_always_a_number() -> None:
    network, info = tiny_model()
    with torch.no_grad():
        network.output.bias[3] = math.nan
    said = written(RowRequest(PROMPT, 5, echo=True, alternatives=2), engine_of(network, info))

    assert said[-1].failed
    assert text_of(said) == PROMPT
    told = [number for score in scores_of(said)[1:] if score for number in (score[0], *dict(score[1]).values())]
    assert told
    assert all(-9999 <= number <= 0 for number in told)


def test_scripted_texts_are_shown_after_their_prompt() -> None:
    said = written(RowRequest("ab", 3, echo=True), scripted_engine("xyz"))
    assert [output.text for output in said] == ["ab", "y", "zx"]
