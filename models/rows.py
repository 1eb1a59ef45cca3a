"""Rows: what one shall write, where it stands, and what it shows of what was drawn for it.

Knows characters and ids, neither the network nor other rows. Invariants: a text that ended by its length and goes on
from its state is, joined, the text that would have been written at once; scores are told of each character of a text
that is shown, or of none.

Shape suffixes: T characters, V vocabulary; a state is [L layers, P parts, H hidden].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoint_header import CheckpointInfo
from models.row_state import RowState
from models.sampling import FORBIDDEN, READ, WRITTEN, SamplingConfig, noise_key
from models.scores import CharacterScore, Scores, ToldScores, told
from models.stop_strings import StopStrings
from models.vocabulary import Vocabulary, normalize

FinishReason = Literal["stop", "length"]

NOT_FINITE = "the network's answer is not finite"
SHOWN_AT_ONCE = 1024
"""Characters of a prompt, or scores and alternatives of fewer: some hundreds of microseconds."""


class NothingAllowed(ValueError):
    """A request allows no character of the vocabulary."""


@dataclass(frozen=True, slots=True)
class RowRequest:
    """What rows shall write, each a sample of its own. The seed is 0 or more; the noise is the same for equal seeds."""

    prompt: str = ""
    max_characters: int = 500
    """0, where only the prompt is to be shown."""
    seed: int = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop: tuple[str, ...] = ()
    skip_unknown: bool = False
    """Leave out what the network does not know of the prompt, instead of refusing it."""
    allowed: str | None = None
    """Characters that may be written; None: all. Those that the network does not know say nothing."""
    forbidden: str = ""
    """Characters that may not."""
    start: RowState | None = None
    """Go on from here; the prompt, if any, is read first, and what was held back is then never shown."""
    keep_state: bool = False
    """Tell the state when the text ends."""
    prompt_ids: tuple[int, ...] | None = None
    """In place of the prompt, its characters' indices in the vocabulary, which no normalization changes."""
    first_sample: int = 0
    """Number of the first row among the samples of the seed."""
    echo: bool = False
    """Show the prompt, as the network reads it, before what is written. Not for what goes on from a state."""
    alternatives: int | None = None
    """Tell the score of each character that is shown, with so many of the likeliest in its place; None: tell none. Not
    for what goes on from a state."""


@dataclass(frozen=True, slots=True)
class RowOutput:
    """What a row wrote in a step, before it failed if it did. After `finished` or `failed` is told, the row is gone."""

    row_id: int
    text: str
    finished: FinishReason | None = None
    failed: str | None = None
    held_back: str = ""
    """At the end by length: the text's last characters, which may be the beginning of a stop string. At a stop string
    within what another request held back: what comes after it."""
    state: RowState | None = None
    """At the end, if the request wants it. After a stop string: as if that had been read."""
    scores: ToldScores = ()
    """Of each character of the text, and at the end by length of those held back, if the request wants them."""


class Prepared:
    """A request in the terms of one network, the same for all its samples.

    The prompt is normalized as the network's texts were. Raises UnknownCharacter, with the position therein, unless
    such are to be skipped; UnknownId, NothingAllowed.
    """

    def __init__(self, request: RowRequest, info: CheckpointInfo) -> None:
        self.request = request
        self.vocabulary = info.vocabulary
        if request.start is not None and (request.echo or request.alternatives is not None):
            raise ValueError("what goes on from a state echoes no prompt and tells no scores")
        given_T = self._given(request, info)
        if request.start is not None:
            read_T = np.concatenate(([request.start.last_id], given_T))
        else:
            read_T = given_T if len(given_T) else info.vocabulary.encode(beginning(info.vocabulary)).astype(np.int64)
        self.prompt_characters = len(given_T)
        self.echo = info.vocabulary.decode(given_T.tolist()) if request.echo else ""
        self.unread_T: NDArray[np.int64] = read_T[:-1]
        """What is read before any sample writes."""
        self.last_id = int(read_T[-1])
        """Read by the step that writes the first character."""
        # As the prompt: under `letters` an `E` never comes.
        self.stops = tuple(normalize(stop, info.config.normalization) for stop in request.stop)
        self.held_back = request.start.held_back if request.start is not None and not len(given_T) else ""
        self._tally_V = self._first_tally(given_T)

    def _given(self, request: RowRequest, info: CheckpointInfo) -> NDArray[np.int64]:
        """The ids of the prompt."""
        if request.prompt_ids is not None:
            info.vocabulary.check_ids(request.prompt_ids)
            return np.array(request.prompt_ids, np.int64)
        prompt = normalize(request.prompt, info.config.normalization)
        if request.skip_unknown:
            prompt = info.vocabulary.known(prompt)
        return info.vocabulary.encode(prompt).astype(np.int64)

    def tally(self) -> NDArray[np.int32] | None:
        """A new one for a sample; None if its characters need not be counted."""
        return None if self._tally_V is None else self._tally_V.copy()

    def _first_tally(self, given_T: NDArray[np.int64]) -> NDArray[np.int32] | None:
        request, kept_V = self.request, self.request.start.tally_V if self.request.start else None
        if not (request.sampling.counts or request.allowed is not None or request.forbidden or kept_V is not None):
            return None
        tally_V = np.zeros(len(self.vocabulary), np.int32) if kept_V is None else kept_V.copy()
        tally_V[given_T] |= READ
        if request.allowed is not None:
            allowed = set(request.allowed)
            tally_V |= np.array([0 if c in allowed else FORBIDDEN for c in self.vocabulary.characters], np.int32)
        if request.forbidden:
            tally_V[self.vocabulary.encode(self.vocabulary.known(request.forbidden))] |= FORBIDDEN
        if (tally_V & FORBIDDEN).all():
            raise NothingAllowed("of the characters that the model knows none may be written")
        return tally_V


class Row:
    """One text in the making: its state, what it has still to read, how much it may still write."""

    def __init__(self, row_id: int, sample: int, prepared: Prepared, allowance: float) -> None:
        request, start = prepared.request, prepared.request.start
        self.id = row_id
        self.request = request
        self.hidden_LPH: Tensor | None = None
        """As of when it is not among those that write; None while its prompt is read."""
        self.place: int | None = None
        self.allowance = allowance
        self.last_id = prepared.last_id
        self.tally_V = prepared.tally()
        self._counted = request.sampling.counts or (start is not None and start.tally_V is not None)
        self._written = 0
        self._before = start.position if start else 0
        self._sample = request.first_sample + sample + (start.sample if start else 0)
        self.noise_key = noise_key(request.seed, self._sample)
        self._characters = prepared.vocabulary.characters
        self._echo, self._echoed = prepared.echo, 0
        self.prompt_scores: Scores | None = None
        """Of all characters but the first of the prompt that is echoed, once it is read, if the request wants them."""
        self._scores: list[CharacterScore] = []  # of what was drawn and is not shown yet
        self.alternatives = request.alternatives and min(request.alternatives, len(prepared.vocabulary))
        """Told beside each character's score; None: no scores are told."""
        self.keeps_state = request.alternatives is not None or (request.keep_state and bool(request.stop))
        """Whether its state is wanted as of before the characters that are drawn together."""
        self._stops = StopStrings(prepared.stops)
        # Fed again: of another request's stop strings it may be the beginning, or hold all of one.
        self._released, self._over, self._unfed = "", False, prepared.held_back
        while self._unfed and not self._over:
            piece, self._over = self._stops.feed(self._unfed[0])
            self._released, self._unfed = self._released + piece, self._unfed[1:]

    @property
    def position(self) -> int:
        """Of the next character, in the noise."""
        return self._before + self._written

    @property
    def most_steps(self) -> int:
        """That it may write at once: up to its end or allowance; the first alone, so that it is shown at once."""
        if not self._written:
            return 1
        return int(min(self.request.max_characters - self._written, self.allowance))

    @property
    def shows_first(self) -> bool:
        """Whether there is something to show before it writes, or it is to write nothing."""
        return self._echoed < len(self._echo) or not self.request.max_characters

    def show(self) -> RowOutput:
        """The next piece of the prompt, within what it may write."""
        begin, whole = self._echoed, len(self._echo)
        most = SHOWN_AT_ONCE // (1 + (self.alternatives or 0))
        end = self._echoed = min(begin + int(min(most, self.allowance)), whole)
        self.allowance -= end - begin
        scores: list[CharacterScore | None] = []
        if self.prompt_scores is not None and end > begin:
            if begin == 0:
                scores.append(None)
            scores += told(self.prompt_scores.cut(max(0, begin - 1), end - 1), self._characters)
        finished: FinishReason | None = "length" if end == whole and not self.request.max_characters else None
        return RowOutput(self.id, self._echo[begin:end], finished, scores=scores)

    def score(self, drawn: Scores) -> None:
        """Of characters that were drawn, to be told when they are shown. Before they are taken."""
        self._scores += told(drawn, self._characters)

    def take(self, ids: Sequence[int]) -> tuple[RowOutput, int]:
        """What there is to show after the drawn characters, and how many of them are a part of the text."""
        pieces, self._released = [self._released], ""
        finished: FinishReason | None = None
        failed, taken = None, 0
        for drawn in () if self._over else ids:  # what follows the end was drawn for nothing
            if drawn < 0:
                failed = NOT_FINITE
                break
            self.last_id = drawn
            self._written += 1
            taken += 1
            piece, self._over = self._stops.feed(self._characters[drawn])
            pieces.append(piece)
            if self._over:
                break
        if self._over:
            finished = "stop"
        elif not failed and self._written == self.request.max_characters:
            finished = "length"
        text = "".join(pieces)
        self.allowance -= len(text)
        if self.tally_V is not None:
            for drawn in ids[taken:]:
                if drawn >= 0:
                    self.tally_V[drawn] -= WRITTEN
        held_back = self._stops.rest() if finished == "length" else self._unfed
        scores: ToldScores = () if self.alternatives is None else self._told(len(text) + len(held_back))
        return RowOutput(self.id, text, finished, failed, held_back, scores=scores), taken

    def _told(self, characters: int) -> list[CharacterScore]:
        scores, self._scores = self._scores[:characters], self._scores[characters:]
        return scores

    def state(self, held_back: str) -> RowState:
        """Where it stands, the last character taken not yet read."""
        assert self.hidden_LPH is not None
        tally_V = self.tally_V & ~FORBIDDEN if self.tally_V is not None and self._counted else None
        return RowState(self.hidden_LPH, self.last_id, self.position, self._sample, tally_V, held_back)


def beginning(vocabulary: Vocabulary) -> str:
    """What is read in place of an empty prompt: a line feed, as at a line's beginning, else a space, else the first
    character of the vocabulary. Always the same, so that an empty prompt and a seed give one text."""
    return next((c for c in "\n " if c in vocabulary), vocabulary.characters[0])
