"""How likely a network finds characters that are given: as models.inference writes, in one compiled call for many.

Knows neither torch's networks nor texts, only arrays; models.stepper owns them. A score is the logarithm of a
probability, in nats. Invariants: what a row scores depends on its own state and characters alone, as long as the
products' rows do so; a score is from LOWEST to 0, or NaN where the network answers nothing finite.

Shape suffixes as in models.inference, and K alternatives. The rows are lanes here: texts that are read side by side.
"""

import numpy as np

from models.arithmetic import FASTMATH, exp
from models.gates import Array
from models.inference import read_character
from models.machine_code import compiled
from models.products import multiply

LOWEST = -9999.0
"""Of a score: the logarithm of nothing could not be written as JSON, nor be part of a mean."""
_0, _LOWEST = np.float64(0), np.float64(LOWEST)


@compiled()
def read_lanes(cell: int, ids_TR: Array, first: int, last: int, *network: Array) -> None:
    """The states after each row has read its column, in place. Raises as `read_character`."""
    for t in range(ids_TR.shape[0]):
        read_character(cell, ids_TR[t], first, last, *network)


@compiled()
def score_lanes(
    cell: int,
    ids_TR: Array,
    first: int,
    last: int,
    states_LPRH: Array,
    output_W: Array,
    scores_TR: Array,
    top_ids_TRK: Array,
    top_scores_TRK: Array,
    logits_RV: Array,
    work_V: Array,
    *network: Array,
) -> None:
    """Each row reads its column but the last character; the score of what follows each is written down, with the
    likeliest alternatives.

    `ids_TR` has one step more than the scores. `logits_RV`, for `last - first` rows, and `work_V` (float32) are room
    to work in. Raises as `read_character`.
    """
    top = states_LPRH.shape[0] - 1
    for t in range(scores_TR.shape[0]):
        read_character(cell, ids_TR[t], first, last, *network)
        multiply(output_W, states_LPRH[top, 0, first:last], logits_RV[: last - first])
        for row in range(first, last):
            logits_V = logits_RV[row - first]
            normalizer = _normalizer(logits_V, work_V)
            scores_TR[t, row] = _score(logits_V[ids_TR[t + 1, row]], normalizer)
            if top_ids_TRK.shape[2] > 0:
                _find_likeliest(logits_V, top_ids_TRK[t, row])
                for k in range(top_ids_TRK.shape[2]):
                    top_scores_TRK[t, row, k] = _score(logits_V[top_ids_TRK[t, row, k]], normalizer)


@compiled()
def _score(logit: float, normalizer: float) -> float:
    score = np.float64(logit) - normalizer
    score = _0 if score > _0 else score  # in this order a NaN stays one
    return _LOWEST if score < _LOWEST else score


@compiled()
def _normalizer(logits_V: Array, work_V: Array) -> float:
    """Logarithm of the sum of the logits' exponentials; NaN if one is NaN or +infinity."""
    highest = logits_V[0]
    for v in range(1, logits_V.shape[0]):
        if logits_V[v] > highest:
            highest = logits_V[v]
    _powers(logits_V, highest, work_V)
    normalizer: float = np.float64(highest) + np.log(_sum(work_V))
    return normalizer


@compiled(fastmath=FASTMATH)
def _powers(logits_V: Array, highest: float, powers_V: Array) -> None:
    for v in range(logits_V.shape[0]):
        powers_V[v] = exp(logits_V[v] - highest)


@compiled(fastmath=FASTMATH | {"reassoc"})
def _sum(values_V: Array) -> float:
    """In float64, in whatever order is fast; always the same one."""
    total = _0
    for v in range(values_V.shape[0]):
        total += values_V[v]
    return total


@compiled()
def _find_likeliest(logits_V: Array, ids_K: Array) -> None:
    """The likeliest characters, likeliest first, of equal ones the lowest id first; at most as many as there are."""
    found, K = 0, ids_K.shape[0]
    for v in range(logits_V.shape[0]):
        if found == K and not logits_V[v] > logits_V[ids_K[K - 1]]:
            continue
        place = min(found, K - 1)
        while place > 0 and logits_V[v] > logits_V[ids_K[place - 1]]:
            ids_K[place] = ids_K[place - 1]
            place -= 1
        ids_K[place] = v
        found = min(found + 1, K)
