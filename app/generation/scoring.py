"""Scores in the generation process: how likely a model finds the characters of texts, in turns between engines' steps.

Knows the shelf and the outbox, no socket and no HTTP. All scores together work as long as they are told
(app.generation.turns), so that streams keep half their pace; a turn that took longer, as a step of a large network may,
is paid for by waiting.
Invariants: of a document no more is under way than was granted, and a piece; a score that is admitted knows every
character of its text.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from app.generation.outbox import Outbox
from app.generation.protocol import Message
from app.generation.score_document import ScoreDocument
from app.generation.shelf import Shelf
from models.engine import TURN_SECONDS
from models.rows import RowOutput
from models.sampling import NotFinite
from models.scorer import Scorer
from models.vocabulary import EmptyText, UnknownCharacter


class Scoring:
    """All scores under way, by their row."""

    def __init__(self, shelf: Shelf, outbox: Outbox, clock: Callable[[], float] = time.perf_counter) -> None:
        self._shelf = shelf
        self._outbox = outbox
        self._clock = clock
        self._scores: OrderedDict[int, _Score] = OrderedDict()  # whose turn is next stands first
        self._credit = 0.0

    def __len__(self) -> int:
        return len(self._scores)

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do."""
        return any(score.busy for score in self._scores.values())

    def begin(self, message: Message) -> None:
        """A score of a model on the shelf, which stays there meanwhile. Its text is to come."""
        score = _Score(message, self._shelf, self._clock)
        self._scores[score.row_id] = score
        self._outbox.say({"is": "wants", "row": score.row_id})

    def feed(self, message: Message) -> None:
        """The piece of its text that a score wanted. Does nothing if the score is gone."""
        if score := self._scores.get(message["row"]):
            score.unread, score.is_last = message["text"], message["last"]

    def grant(self, row_id: int, characters: int) -> None:
        """So much more of a document may be told. Does nothing if the score is gone."""
        if score := self._scores.get(row_id):
            score.allowance += characters

    def evict(self, row_id: int) -> None:
        """The score is gone, whatever it was doing. Does nothing if it is already."""
        if score := self._scores.pop(row_id, None):
            self._shelf.take_back(score.blob_id)

    def advance(self, seconds: float) -> None:
        """One score works for so many seconds more, at most for a turn."""
        self._credit = min(self._credit + seconds, TURN_SECONDS)
        score = next((score for score in self._scores.values() if score.busy), None)
        if score is None or self._credit <= 0:
            return
        self._scores.move_to_end(score.row_id)
        began = self._clock()
        try:
            self._work(score, began + self._credit)
        except UnknownCharacter as error:
            self._refuse(score, "unknown_character", str(error), character=error.character, position=error.position)
        except EmptyText as error:
            self._refuse(score, "empty_text", str(error))
        except NotFinite as error:
            self._outbox.say({"is": "failed", "row": score.row_id, "detail": str(error)})
            self.evict(score.row_id)
        self._credit -= self._clock() - began

    def _work(self, score: "_Score", until: float) -> None:
        if score.unread is not None:
            if score.read():
                self._outbox.say({"is": "admitted", "rows": [score.row_id]})
            else:
                self._outbox.say({"is": "wants", "row": score.row_id})
        while score.busy and (left := until - self._clock()) > 0:
            piece, finished = score.advance(left)
            if piece:
                self._outbox.write(RowOutput(score.row_id, piece, "length" if finished else None), first=False)
            if finished:
                self.evict(score.row_id)
                return

    def _refuse(self, score: "_Score", code: str, detail: str, **fields: str | int) -> None:
        self._outbox.say({"is": "refused", "rows": [score.row_id], "code": code, "detail": detail} | fields)
        self.evict(score.row_id)


class _Score:
    """One text: what is still to be read of it, and how much may still be told."""

    def __init__(self, message: Message, shelf: Shelf, clock: Callable[[], float]) -> None:
        self.row_id: int = message["rows"][0]
        self.blob_id: str = message["blob"]
        self.allowance: int = message["characters"]
        self.unread: str | None = None
        self.is_last = False
        self._is_read = False
        model, request = shelf.lend(self.blob_id), message["request"]
        top, skip = request["top"], request["unknown"] == "skip"
        self._scorer = Scorer(model.stepper, model.info, alternatives=top, skip_unknown=skip, clock=clock)
        self._document = ScoreDocument(self._scorer, model.info.vocabulary.characters, top=top > 0, clock=clock)

    @property
    def busy(self) -> bool:
        return self.unread is not None or (self._is_read and self.allowance > 0)

    def read(self) -> bool:
        """Whether that was all. Raises UnknownCharacter, EmptyText."""
        assert self.unread is not None
        self._scorer.read(self.unread)
        self.unread = None
        if self.is_last:
            self._scorer.end()
        self._is_read = self.is_last
        return self._is_read

    def advance(self, seconds: float) -> tuple[str, bool]:
        """The next piece, perhaps nothing, and whether it is the last. Raises NotFinite."""
        piece = self._document.advance(seconds)
        self.allowance -= len(piece)
        return piece, self._document.finished
