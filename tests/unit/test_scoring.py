"""Scores in the generation process: a valid document however it is cut, no more than granted, no longer than a turn."""

import json
import math
from collections import Counter, defaultdict
from typing import Any

import pytest
import torch

from app.generation.protocol import Message
from app.generation.scoring import Scoring
from app.generation.shelf import Decoded
from models import scorer
from models.engine import TURN_SECONDS
from models.rnn import CharRNN
from models.rows import RowOutput
from models.scorer import Scorer
from models.stepper import Stepper
from tests.unit.test_scorer import ALPHABET, model_of, text_of

PIECE = 120_000
"""No piece of a document is longer."""


class Told:
    """An outbox that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.pieces: dict[int, list[str]] = defaultdict(list)
        self.finished: set[int] = set()

    def say(self, message: Message) -> None:
        self.said.append(message)

    def write(self, output: RowOutput, *, first: bool) -> None:
        assert not first
        assert len(output.text) < PIECE
        self.pieces[output.row_id].append(output.text)
        if output.finished:
            self.finished.add(output.row_id)

    def document(self, row_id: int, between: str = "") -> dict[str, Any]:
        document: dict[str, Any] = json.loads('{"model": "m",' + between.join(self.pieces[row_id]))
        return document


class OneModel:
    """A shelf with one model."""

    def __init__(self, decoded: Decoded) -> None:
        self._decoded = decoded
        self.lent: Counter[str] = Counter()

    def lend(self, blob_id: str) -> Decoded:
        self.lent[blob_id] += 1
        return self._decoded

    def take_back(self, blob_id: str) -> None:
        self.lent[blob_id] -= 1


class Timed:
    """A stepper that takes so long for each step, by its own clock."""

    def __init__(self, real: Stepper, seconds: float) -> None:
        self.now = 0.0
        self._real = real
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def read_lanes(self, lanes: Any, ids_TR: Any) -> None:
        self.now += len(ids_TR) * self._seconds
        self._real.read_lanes(lanes, ids_TR)

    def score_lanes(self, lanes: Any, ids_TR: Any, *arrays: Any) -> None:
        self.now += (len(ids_TR) - 1) * self._seconds
        self._real.score_lanes(lanes, ids_TR, *arrays)


class Stage:
    """A service's side of scoring, and what it works with."""

    def __init__(self, network: CharRNN | None = None, step_seconds: float | None = None) -> None:
        made, info = model_of()
        stepper: Any = Stepper(network or made, torch.float32)
        if step_seconds is not None:
            stepper = Timed(stepper, step_seconds)
        self.stepper, self.info = stepper, info
        self.shelf, self.told = OneModel(Decoded(stepper, info, 1)), Told()
        clock = {} if step_seconds is None else {"clock": lambda: stepper.now}
        self.scoring = Scoring(self.shelf, self.told, **clock)  # type: ignore[arg-type]

    def begin(self, row_id: int, granted: int = 10**9, *, top: int = 0, unknown: str = "refuse") -> None:
        request = {"top": top, "unknown": unknown}
        self.scoring.begin({"rows": [row_id], "blob": "b", "request": request, "characters": granted})
        assert self.told.said[-1] == {"is": "wants", "row": row_id}

    def feed(self, row_id: int, *pieces: str) -> Message:
        """What is said after the last of these pieces, which end the text."""
        for number, piece in enumerate(pieces, 1):
            self.scoring.feed({"row": row_id, "text": piece, "last": number == len(pieces)})
            self.scoring.advance(math.inf)
        return self.told.said[-1]

    def run(self, seconds: float = math.inf) -> None:
        while self.scoring.busy:
            self.scoring.advance(seconds)


@pytest.mark.parametrize("top", [0, 1, 20])
def test_a_document_tells_what_the_scorer_does_wherever_white_space_is_put_between_its_pieces(top: int) -> None:
    text, stage = text_of(9000), Stage()
    stage.begin(1, top=top)
    assert stage.feed(1, text[:4000], text[4000:]) == {"is": "admitted", "rows": [1]}
    stage.run()
    assert stage.told.finished == {1}
    document = stage.told.document(1, between=" \n")
    working = Scorer(stage.stepper, stage.info, alternatives=top)
    working.read(text)
    working.end()
    expected, likely = list[float](), list[list[tuple[str, float]]]()
    while not working.finished:
        if scores := working.advance(math.inf):
            expected += scores.of_text_N.tolist()
            for ids, numbers in zip(scores.top_ids_NK.tolist(), scores.top_NK.tolist(), strict=True):
                likely.append([(ALPHABET[v], round(score, 5)) for v, score in zip(ids, numbers, strict=True)])
    assert document["log_probabilities"] == pytest.approx(expected, abs=6e-6)
    told = document.get("top", [[]] * 9000)
    assert [[tuple(one.values()) for one in position] for position in told] == likely
    assert document["characters"] == 9000
    assert document["loss"] == pytest.approx(-sum(expected) / 9000, abs=1e-6)
    assert document["bits_per_character"] == pytest.approx(document["loss"] / math.log(2), abs=1e-6)
    assert document["perplexity"] == pytest.approx(math.exp(document["loss"]), rel=1e-5)
    assert document["characters_per_second"] > 0
    assert list(document)[-5:] == ["characters", "loss", "bits_per_character", "perplexity", "characters_per_second"]


@pytest.mark.parametrize("top", [0, 20])
def test_no_more_is_told_than_was_granted_and_a_piece(top: int) -> None:
    stage, granted = Stage(), 50_000
    stage.begin(1, granted, top=top)
    stage.feed(1, text_of(20_000))
    while not stage.told.finished:
        stage.run()
        told = sum(map(len, stage.told.pieces[1]))
        assert told < granted + PIECE
        assert told >= granted or stage.told.finished
        assert not stage.scoring.busy
        granted += 30_000
        stage.scoring.grant(1, 30_000)
    assert len(stage.told.document(1)["log_probabilities"]) == 20_000
    assert len(stage.scoring) == 0


def test_a_score_that_is_refused_is_gone_and_its_model_given_back() -> None:
    stage = Stage()
    stage.begin(1)
    stage.begin(2, unknown="skip")
    stage.begin(3)
    assert stage.shelf.lent["b"] == 3
    assert stage.feed(1, "ab", "c€", "d") == {
        "is": "refused", "rows": [1], "code": "unknown_character", "character": "€", "position": 3,
        "detail": "character '€' (U+20AC, EURO SIGN) at position 3 is not known",
    }  # fmt: skip
    refused = stage.feed(2, "€", "€")
    assert (refused["is"], refused["rows"], refused["code"]) == ("refused", [2], "empty_text")
    assert stage.shelf.lent["b"] == len(stage.scoring) == 1
    assert not stage.scoring.busy, "the third waits for its text"
    stage.scoring.evict(3)
    stage.scoring.evict(3)
    assert stage.shelf.lent["b"] == len(stage.scoring) == 0
    for late in (lambda: stage.scoring.grant(3, 5), lambda: stage.scoring.feed({"row": 3, "text": "a", "last": True})):
        late()
    assert not stage.scoring.busy


def test_an_answer_that_is_not_finite_fails_its_score_alone() -> None:
    network, info = model_of()
    with torch.no_grad():
        network.embedding.weight[info.vocabulary.encode("z")[0]] = torch.nan
    stage = Stage(network)
    stage.begin(1)
    stage.begin(2)
    stage.feed(1, "a" * 5000 + "za")
    stage.feed(2, "abz")
    stage.run()
    assert stage.told.said[-1] == {"is": "failed", "row": 1, "detail": "the network's answer is not finite"}
    assert stage.told.finished == {2}
    assert stage.told.document(2)["characters"] == 3


def test_what_is_improbable_beyond_all_measure_is_still_a_number() -> None:
    network, info = model_of()
    with torch.no_grad():
        network.output.bias[info.vocabulary.encode("z")[0]] = -torch.inf
    stage = Stage(network)
    stage.begin(1, top=20)
    stage.feed(1, "zzz")
    stage.run()
    document = stage.told.document(1)
    assert document["log_probabilities"] == [-9999] * 3
    assert document["loss"] == 9999
    assert 1e300 < document["perplexity"] < math.inf


def test_an_evicted_score_tells_nothing_more() -> None:
    stage = Stage()
    stage.begin(1, granted=1000)
    stage.feed(1, text_of(20_000))
    stage.run()
    before = len(stage.told.pieces[1])
    stage.scoring.evict(1)
    stage.scoring.grant(1, 10**6)
    assert not stage.scoring.busy
    stage.scoring.advance(math.inf)
    assert len(stage.told.pieces[1]) == before


def test_all_scores_together_work_as_long_as_they_are_told_and_no_longer_than_a_turn() -> None:
    stage = Stage(step_seconds=1 / 8192)
    for row_id in (1, 2):
        stage.begin(row_id)
        stage.feed(row_id, text_of(scorer.STRETCH))
    for seconds in (0.001, 0.0005, TURN_SECONDS, 1.0):
        began = stage.stepper.now
        for _ in range(20):
            stage.scoring.advance(seconds)
        worked, allowed = stage.stepper.now - began, 20 * min(seconds, TURN_SECONDS)
        assert allowed - 2 * TURN_SECONDS <= worked <= allowed + TURN_SECONDS + 1 / 8192
    began = stage.stepper.now
    stage.scoring.advance(math.inf)
    assert TURN_SECONDS - 1 / 8192 <= stage.stepper.now - began <= TURN_SECONDS + 1 / 8192, "nobody else: a turn"
    stage.run()
    assert stage.told.finished == {1, 2}


def test_a_step_of_a_large_network_is_paid_for_by_waiting_unless_nobody_waits() -> None:
    stage = Stage(step_seconds=1 / 16)
    stage.begin(1)
    stage.feed(1, text_of(10))
    began = stage.stepper.now
    for _ in range(60):
        stage.scoring.advance(TURN_SECONDS)
    assert 1 <= (stage.stepper.now - began) * 16 <= 2, "in the 120 ms that it was given"
    began = stage.stepper.now
    for _ in range(4):
        stage.scoring.advance(math.inf)
    assert (stage.stepper.now - began) * 16 == 4


def test_scores_take_turns() -> None:
    stage = Stage(step_seconds=1 / 8192)
    for row_id, characters in ((1, scorer.STRETCH), (2, 100)):
        stage.begin(row_id)
        stage.feed(row_id, text_of(characters))
    turns = 0
    while 2 not in stage.told.finished:
        stage.scoring.advance(math.inf)
        turns += 1
    assert turns < 20, "the short text did not wait for the long one"
    assert 1 not in stage.told.finished
