"""Scores of characters, log-probabilities in nats: as arrays, and as they are told beside a text.

Knows no texts and no rows. A score is of the network's own distribution: at temperature 1, before penalties, filters
and forbidden characters. Invariant: a score that is told is a number from LOWEST to 0, never NaN.

Shape suffixes: T time steps, R lanes, K alternatives, N characters; a state is [L layers, P parts, H hidden].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.likelihood import LOWEST

DECIMALS = 6

CharacterScore = tuple[float, list[tuple[str, float]]]
"""A character's score, and the likeliest characters in its place with theirs, likeliest first."""
ToldScores = Sequence[CharacterScore | None]
"""Of characters of a text; None for the first of a prompt, which nothing foretold."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Of the next characters of a text, with the likeliest alternatives, likeliest first."""

    of_text_N: NDArray[np.float32]
    top_ids_NK: NDArray[np.int32]
    top_NK: NDArray[np.float32]

    def cut(self, begin: int, end: int) -> "Scores":
        """Those of some of the characters."""
        return Scores(self.of_text_N[begin:end], self.top_ids_NK[begin:end], self.top_NK[begin:end])


def joined(pieces: Sequence[Scores], alternatives: int) -> Scores:
    """Those of a text, from those of its pieces; there may be none."""
    of_text = [np.empty(0, np.float32), *(piece.of_text_N for piece in pieces)]
    top_ids = [np.empty((0, alternatives), np.int32), *(piece.top_ids_NK for piece in pieces)]
    top = [np.empty((0, alternatives), np.float32), *(piece.top_NK for piece in pieces)]
    return Scores(np.concatenate(of_text), np.concatenate(top_ids), np.concatenate(top))


class ScoresLanes(Protocol):
    """Of models.stepper what tells scores. Lanes are its own affair."""

    def score_lanes(
        self,
        lanes: Any,
        ids_TR: NDArray[np.int64],
        scores_TR: NDArray[np.float32],
        top_ids_TRK: NDArray[np.int32],
        top_scores_TRK: NDArray[np.float32],
    ) -> None: ...


class Stepper(ScoresLanes, Protocol):
    """models.stepper, as far as it is needed here."""

    def lanes_from(self, states_LPRH: NDArray[np.float32]) -> Any: ...

    def states_of(self, lanes: Any) -> NDArray[np.float32]: ...


def score(
    stepper: Stepper, states_LPRH: NDArray[np.float32], ids_TR: NDArray[np.int64], alternatives: Sequence[int]
) -> tuple[NDArray[np.float32], list[Scores]]:
    """The states after each lane has read its column but the last character, and the scores of what follows each.

    `alternatives`: how many of the likeliest characters are told of each lane, at most as many as there are.
    """
    steps, lanes = len(ids_TR) - 1, ids_TR.shape[1]
    scores_TR, most = np.empty((steps, lanes), np.float32), max(alternatives)
    top_ids_TRK, top_TRK = np.empty((steps, lanes, most), np.int32), np.empty((steps, lanes, most), np.float32)
    read = stepper.lanes_from(np.ascontiguousarray(states_LPRH))
    stepper.score_lanes(read, np.ascontiguousarray(ids_TR), scores_TR, top_ids_TRK, top_TRK)
    of_lanes = [
        Scores(scores_TR[:, lane], top_ids_TRK[:, lane, :number], top_TRK[:, lane, :number])
        for lane, number in enumerate(alternatives)
    ]
    return stepper.states_of(read), of_lanes


def told(scores: Scores, alphabet: str) -> list[CharacterScore]:
    """The same as numbers and characters, for JSON."""
    tops = zip(scores.top_ids_NK.tolist(), _sound(scores.top_NK), strict=True)
    likeliest = [[(alphabet[drawn], of) for drawn, of in zip(ids, top, strict=True)] for ids, top in tops]
    return list(zip(_sound(scores.of_text_N), likeliest, strict=True))


def _sound(scores: NDArray[np.float32]) -> list[Any]:
    """NaN, where the network answers nothing finite, becomes LOWEST: JSON has no word for it."""
    exact = np.nan_to_num(scores.astype(np.float64), nan=LOWEST, neginf=LOWEST).clip(LOWEST, 0)
    rounded: list[Any] = (exact.round(DECIMALS) + 0.0).tolist()  # no -0.0
    return rounded
