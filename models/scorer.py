"""Scoring: how likely a network finds each character of a text, worked out in slices of a few milliseconds.

Knows no network, connection or process. The text comes in pieces and is kept as ids, a byte or two for each character.
Then it is cut into stretches of `STRETCH` characters, some of which are read side by side, in lanes: each from the
state after the `WARM_CHARACTERS` before it, which count in the stretch before; the first stretch from nothing, as an
empty prompt is read. So a text of at most `STRETCH` characters is read exactly.

Invariant: what a character scores depends on the weights and the text alone, not on the pieces, the slices, the number
of lanes or the alternatives that are asked for. (As far as the stepper's rows are their own: see models.stepper.)

Shape suffixes: T time steps, R lanes, K alternatives, N characters.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.checkpoint_header import CheckpointInfo
from models.engine import SHORTEST_SECONDS, TURN_SECONDS
from models.rows import NOT_FINITE, beginning
from models.sampling import NotFinite
from models.scores import Scores, ScoresLanes
from models.vocabulary import EmptyText, Normalizer, UnknownCharacter

STRETCH = 4096
WARM_CHARACTERS = 256
LANES = 32
LANES_WITH_ALTERNATIVES = 16
MOST_STEPS = 256
PIECE_NUMBERS = 2048
"""That are handed out at once, of characters and alternatives together."""


class Stepper(ScoresLanes, Protocol):
    """models.stepper, as far as it is needed here."""

    def lanes(self, number: int) -> Any: ...

    def forget(self, lanes: Any, place: int) -> None: ...

    def read_lanes(self, lanes: Any, ids_TR: NDArray[np.int64]) -> None: ...


class Scorer:
    """One text and one network: `read` its pieces, `end` it, then `advance` until `finished`. For one thread."""

    def __init__(
        self,
        stepper: Stepper,
        info: CheckpointInfo,
        *,
        alternatives: int = 0,
        skip_unknown: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.finished = False
        self.loss = 0.0
        """Mean of the scores so far, negated: nats per character."""
        self._stepper = stepper
        self._vocabulary = info.vocabulary
        self._normalizer = Normalizer(info.config.normalization)
        self._skip_unknown = skip_unknown
        self._alternatives = min(alternatives, len(info.vocabulary))
        self._clock = clock
        self._type = np.min_scalar_type(len(info.vocabulary) - 1)
        self._ids = bytearray(info.vocabulary.encode(beginning(info.vocabulary)).astype(self._type).tobytes())
        self._step_seconds = TURN_SECONDS
        self._seconds = 0.0
        self._work = self._scores()

    @property
    def characters(self) -> int:
        """That have been read, normalized; without those that are skipped."""
        return len(self._ids) // self._type.itemsize - 1

    def ids(self, begin: int, end: int) -> list[int]:
        """Those characters, by their places in the text that is scored."""
        ids_N = np.frombuffer(self._ids, self._type)[1:]
        return ids_N[begin:end].tolist()  # type: ignore[no-any-return]

    def read(self, piece: str) -> None:
        """The text goes on so. Raises UnknownCharacter, with the position in the whole normalized text."""
        self._take(self._normalizer.feed(piece))

    def end(self) -> None:
        """The text has ended. Raises EmptyText, UnknownCharacter."""
        self._take(self._normalizer.end())
        if not self.characters:
            raise EmptyText("no characters are left to score")

    def _take(self, text: str) -> None:
        if self._skip_unknown:
            text = self._vocabulary.known(text)
        try:
            ids_N = self._vocabulary.encode(text)
        except UnknownCharacter as error:
            raise UnknownCharacter(error.character, self.characters + error.position) from None
        self._ids += ids_N.astype(self._type).tobytes()

    def advance(self, seconds: float) -> Scores | None:
        """Work for about so long, or until there are scores to hand out: those of the next characters.

        Raises NotFinite when the network's answer to a character is.
        """
        self._seconds = seconds
        return next(self._work)

    def _scores(self) -> Iterator[Scores | None]:
        ids_N, total, told = np.frombuffer(self._ids, self._type), 0.0, 0
        characters = self.characters
        lanes = LANES_WITH_ALTERNATIVES if self._alternatives else LANES
        for begin in range(0, characters, lanes * STRETCH):
            block = _Block(self._stepper, ids_N, begin, lanes, self._alternatives)
            while block.steps_left:
                self._advance(block)
                yield None
            for scores in block.scores():
                total += float(scores.of_text_N.sum(dtype=np.float64))
                if math.isnan(total):
                    raise NotFinite(NOT_FINITE)
                told += len(scores.of_text_N)
                self.loss, self.finished = -total / told, told == characters
                yield scores

    def _advance(self, block: "_Block") -> None:
        steps = max(1, int(min(self._seconds / self._step_seconds, MOST_STEPS, block.steps_left)))
        began = self._clock()
        block.advance(steps)
        self._step_seconds = max(self._clock() - began, SHORTEST_SECONDS) / steps


class _Block:
    """Stretches that are read side by side.

    A lane's column begins with what it is warmed on. Before the text's beginning there is nothing: the first lane reads
    its first character over and over, and forgets that. After the end the last lane reads its last, which is not told.
    """

    def __init__(self, stepper: Stepper, ids_N: NDArray[Any], begin: int, most_lanes: int, alternatives: int) -> None:
        characters = len(ids_N) - 1
        begins_R = np.arange(begin, min(begin + most_lanes * STRETCH, characters), STRETCH)
        self._characters_R = np.minimum(STRETCH, characters - begins_R).tolist()
        self._starts_text = begin == 0
        self._stepper = stepper
        self._lanes = stepper.lanes(len(begins_R))
        self._warm = 0 if self._starts_text and len(begins_R) == 1 else WARM_CHARACTERS
        steps, lanes = self._characters_R[0], len(begins_R)
        # `ids_N` has what is read in place of an empty prompt before the text: the index of what foretells the next.
        places_TR = begins_R + np.arange(-self._warm, steps + 1)[:, None]
        self._ids_TR = ids_N[places_TR.clip(0, characters)].astype(np.int64)
        self._scores_TR = np.empty((steps, lanes), np.float32)
        self._top_ids_TRK = np.empty((steps, lanes, alternatives), np.int32)
        self._top_scores_TRK = np.empty((steps, lanes, alternatives), np.float32)
        self._read = 0

    @property
    def steps_left(self) -> int:
        """Until the lanes are warm, or then until the end."""
        return (self._warm if self._read < self._warm else len(self._ids_TR) - 1) - self._read

    def advance(self, steps: int) -> None:
        """At most `steps_left`."""
        begin, self._read = self._read, self._read + steps
        if begin < self._warm:
            self._stepper.read_lanes(self._lanes, self._ids_TR[begin : self._read])
            if self._starts_text and self._read == self._warm:
                self._stepper.forget(self._lanes, 0)
            return
        part = slice(begin - self._warm, self._read - self._warm)
        self._stepper.score_lanes(
            self._lanes,
            self._ids_TR[begin : self._read + 1],
            self._scores_TR[part],
            self._top_ids_TRK[part],
            self._top_scores_TRK[part],
        )

    def scores(self) -> Iterator[Scores]:
        """In the order of the text."""
        at_once = max(1, PIECE_NUMBERS // (1 + self._top_ids_TRK.shape[2]))
        for lane, characters in enumerate(self._characters_R):
            for begin in range(0, characters, at_once):
                part = slice(begin, min(begin + at_once, characters)), lane
                yield Scores(self._scores_TR[part], self._top_ids_TRK[part], self._top_scores_TRK[part])
