"""The scores of a text as a JSON document, piece by piece: the long lists first, the sums last.

Knows a scorer, no rows and no messages. Invariants: the pieces, joined, end an object that has other fields before;
each piece ends between two of JSON's words, so that white space may stand there; no number is infinite.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engine import SHORTEST_SECONDS
from models.scorer import PIECE_NUMBERS, Scorer
from models.scores import Scores

LARGEST_LOSS = 700.0
"""Of which the exponential, the perplexity, is still a number."""


class ScoreDocument:
    """What one scorer has to tell. Alternatives come first, with what they are beside: the text's characters. The
    text's own scores then wait, in 4 bytes each."""

    def __init__(
        self, scorer: Scorer, vocabulary: str, *, top: bool, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.finished = False
        self._scorer = scorer
        self._vocabulary = vocabulary
        self._top = top
        self._clock = clock
        self._names: dict[int, str] = {}
        self._began = self._seconds = self._left = 0.0
        self._pieces = self._write()

    def advance(self, seconds: float) -> str:
        """The next piece, nothing if there is none after about so long. Raises NotFinite."""
        self._began, self._left = self._clock(), seconds
        piece = next(self._pieces)
        self._seconds += self._clock() - self._began
        return piece

    def _write(self) -> Iterator[str]:
        waiting: list[NDArray[np.float32]] = []
        before = '"top":[' if self._top else '"log_probabilities":['
        while not self._scorer.finished:
            scores = self._scorer.advance(self._left)
            if scores is None:
                yield ""
                continue
            if self._top:
                waiting.append(scores.of_text_N.copy())  # not a view, which would keep all alternatives
            yield before + (self._alternatives(scores) if self._top else _numbers(scores.of_text_N))
            before = ","
        if self._top:
            yield from self._text()
        before = '],"log_probabilities":['
        for scores_of_text in waiting:
            yield before + _numbers(scores_of_text)
            before = ","
        self.finished = True
        yield "]," + json.dumps(self._sums(), allow_nan=False).removeprefix("{")

    def _text(self) -> Iterator[str]:
        before = '],"text":['
        for begin in range(0, self._scorer.characters, PIECE_NUMBERS):
            ids = self._scorer.ids(begin, begin + PIECE_NUMBERS)
            yield before + ",".join([json.dumps(self._vocabulary[one], ensure_ascii=False) for one in ids])
            before = ","

    def _sums(self) -> dict[str, Any]:
        loss, seconds = self._scorer.loss, self._seconds + self._clock() - self._began
        return {
            "characters": self._scorer.characters,
            "loss": round(loss, 6),
            "bits_per_character": round(loss / math.log(2), 6),
            "perplexity": round(math.exp(min(loss, LARGEST_LOSS)), 6),
            "characters_per_second": round(self._scorer.characters / max(seconds, SHORTEST_SECONDS), 1),
        }

    def _alternatives(self, scores: Scores) -> str:
        rows = zip(scores.top_ids_NK.tolist(), scores.top_NK.tolist(), strict=True)
        return ",".join([f"[{','.join(map(self._alternative, ids, top))}]" for ids, top in rows])

    def _alternative(self, drawn: int, score: float) -> str:
        if (name := self._names.get(drawn)) is None:
            quoted = json.dumps(self._vocabulary[drawn], ensure_ascii=False)
            name = self._names[drawn] = f'{{"character":{quoted},"log_probability":'
        return f"{name}{score:.5f}}}"


def _numbers(scores: NDArray[np.float32]) -> str:
    return ",".join([f"{score:.5f}" for score in scores.tolist()])
