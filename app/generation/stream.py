"""Streams: the text of one row, or of several of one request, on its way to whoever reads it, and what can go wrong.

Knows the link that rows are on, not HTTP. Belongs to the event loop. Invariant: at most `GRANTED_CHARACTERS` (and the
end of a text, held back for a stop string; of a score `GRANTED_OF_SCORE`, and a piece) wait here for each row, since
the process is granted more only as they are read.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self

from app.generation.link import Link
from app.generation.protocol import Message

GRANTED_CHARACTERS = 2048
"""How far a row may write ahead of its reader: some milliseconds' work of the fastest, and at most 8 KiB."""
NUMBERS_GRANTED = 8192
"""Of scores and alternatives together, where a row tells them beside its text: each takes a hundred bytes here."""
GRANTED_OF_SCORE = 131_072
"""Of the document that tells a score: nine for each character of the text, of which there are 400,000 in a second."""
MOST_PIECES = 32
"""That text waits in: in a crowd one has a few characters and takes a hundred bytes, so more are joined."""
FED_CHARACTERS = 8192
"""Of a text to score that go to the process at once, which then works on it for a millisecond or two."""


class GenerationError(Exception):
    """The base of what can go wrong in generation."""


class Holder(NamedTuple):
    """Whose streams are counted together, and how many of them may be open; None: as many as of all."""

    id: str
    max_streams: int | None


class TooManyStreams(GenerationError):
    """As many streams are open as may be, in all or of one holder."""

    def __init__(self, limit: int, open_streams: int, wanted: int, *, of_holder: bool = False) -> None:
        places = "one place" if wanted == 1 else f"{wanted} places"
        whose = " of this API key" if of_holder else ""
        counted = f"of at most {limit} streams{whose} {open_streams} are open"
        super().__init__(f"{counted}: {places} cannot be had at the moment")
        self.limit = limit


class GenerationRefused(GenerationError):
    """The request cannot be served by this model. `code` is for programs; `fields` explain it."""

    def __init__(self, code: str, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.fields = fields


class GenerationUnavailable(GenerationError):
    """There is no generation process at the moment; trying again later may help."""


class StreamFailed(GenerationError):
    """The text broke off; what was read so far is not all of it."""


class Stream:
    """The text of one row as it is written, taken with `ready`. `evict` it in the end."""

    def __init__(self, stream_id: int, forget: Callable[["Stream"], None], changed: asyncio.Event) -> None:
        self.id = stream_id
        self.link: Link | None = None
        self.finish_reason: Literal["stop", "length"] | None = None
        """Why it ended, once it has; there may be text left to take."""
        self.held_back = ""
        """Of a text that ended: its last characters, which may be the beginning of a stop string."""
        self.state: str | None = None
        """Of a text that ended, if it was asked for: the row's, in base64."""
        self.characters = 0
        """How many were taken."""
        self._scores: list[Any] = []
        self.failure: GenerationError | None = None
        self._forget = forget
        self._changed = changed
        self._pieces: list[str] = []
        self._granted = GRANTED_CHARACTERS
        self._ungranted = 0
        self._unsent: Iterator[tuple[str, bool]] = iter(())
        self._evicted = False

    @property
    def over(self) -> bool:
        """Whether no more text will come, nor is there any left."""
        return not self._pieces and (self.finish_reason is not None or self._evicted)

    def ready(self) -> str:
        """All the text that has come, perhaps none. Raises StreamFailed after the last of a text that broke off."""
        if not self._pieces and self.failure is not None:
            raise self.failure
        text = "".join(self._pieces)
        self._pieces.clear()
        self.characters += len(text)
        self._grant(len(text))
        return text

    def scores(self, characters: int) -> list[Any]:
        """Those of the next characters, whose text was taken (app.generation.protocol); none if none are told."""
        scores, self._scores = self._scores[:characters], self._scores[characters:]
        return scores

    def _grant(self, characters: int) -> None:
        self._ungranted += characters
        if self._ungranted >= self._granted // 4 and self.link is not None:
            self.link.say({"do": "grant", "row": self.id, "characters": self._ungranted})
            self._ungranted = 0

    def evict(self) -> None:
        """The row is gone within a step, whatever it was doing, and its place is free. Does nothing a second time."""
        if self._evicted:
            return
        self._evicted = True
        self._changed.set()
        self._forget(self)
        if self.link is not None and self.finish_reason is None:
            self.link.say({"do": "evict", "row": self.id})

    # What follows is told by `Generation`, as the process tells it.

    def begin(self, granted: int) -> None:
        """The row may write so many characters ahead of its reader."""
        self._granted = granted

    def begin_score(self, text: str) -> int:
        """Hold the text ready that its row is to score; how many characters of the answer are granted."""
        self._granted = GRANTED_OF_SCORE
        self._unsent = _pieces(text)
        return self._granted

    def feed(self) -> None:
        """The process wants the next piece of the text to score."""
        if self.link is not None and (piece := next(self._unsent, None)):
            self.link.say({"do": "feed", "row": self.id, "text": piece[0], "last": piece[1]})
            if piece[1]:
                self._unsent = iter(())  # which else keeps the text

    def take(self, text: str, ending: Message | None, scores: Sequence[Any] = ()) -> None:
        """The process wrote more, and perhaps has come to the end."""
        self._scores += scores
        if text:
            self._pieces.append(text)
            if len(self._pieces) > MOST_PIECES:
                self._pieces = ["".join(self._pieces)]
        if ending is not None:
            self.finish_reason = ending["finish_reason"]
            self.held_back, self.state = ending["held_back"], ending["state"]
        self._changed.set()

    def fail(self, failure: GenerationError) -> None:
        """No more will come. Does nothing to a text that has ended."""
        if self.failure is None and self.finish_reason is None:
            self.failure = failure
        self._changed.set()


class Samples:
    """The streams of one request, admitted together: iterate over index and text of each as they come.

    `evict` them in the end. Iterating raises StreamFailed as soon as one of them has broken off.
    """

    def __init__(self, streams: Sequence[Stream], changed: asyncio.Event, reader_seconds: float) -> None:
        self.streams = tuple(streams)
        self.reader_seconds = reader_seconds
        """For how long a client that takes nothing may keep them."""
        self.prompt_characters: Sequence[int] = ()
        """Of each prompt, as the network reads it, once they are admitted."""
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed = changed
        self._turn = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, str]:
        while True:
            self._changed.clear()
            for _ in self.streams:
                index = self._turn
                self._turn = (index + 1) % len(self.streams)
                if text := self.streams[index].ready():
                    return index, text
            if all(stream.over for stream in self.streams):
                raise StopAsyncIteration
            await self._changed.wait()

    def admit(self, link: Link, message: Message) -> None:
        """Ask the process for rows."""
        for stream in self.streams:
            stream.link = link
            stream.begin(message["characters"])
        link.say({"do": "admit", "rows": [stream.id for stream in self.streams], **message})

    def score(self, link: Link, text: str, message: Message) -> None:
        """Ask the process for a row, the only one, that scores a text."""
        (stream,) = self.streams
        stream.link = link
        granted = stream.begin_score(text)
        link.say({"do": "score", "rows": [stream.id], "characters": granted, **message})

    def set_admitted(self, prompt_characters: Sequence[int]) -> None:
        """The process has rows for them."""
        self.prompt_characters = prompt_characters
        if not self.admitted.done():
            self.admitted.set_result(None)

    def fail(self, failure: GenerationError) -> None:
        """No more will come."""
        for stream in self.streams:
            stream.fail(failure)
        if not self.admitted.done():
            refused = isinstance(failure, GenerationRefused)
            self.admitted.set_exception(failure if refused else GenerationUnavailable(str(failure)))

    def evict(self) -> None:
        """Their rows are gone within a step, and their places free. Does nothing a second time."""
        for stream in self.streams:
            stream.evict()
        if self.admitted.done() and not self.admitted.cancelled():
            self.admitted.exception()  # seen: nobody else may be waiting for it


def granted_characters(alternatives: int | None) -> int:
    """How far a row may write ahead of its reader that tells so many alternatives of each; None: no scores either."""
    if alternatives is None:
        return GRANTED_CHARACTERS
    return min(GRANTED_CHARACTERS, NUMBERS_GRANTED // (1 + alternatives))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """A text, cut, and of each piece whether it is the last."""
    for begin in range(0, len(text), FED_CHARACTERS):
        end = begin + FED_CHARACTERS
        yield text[begin:end], end >= len(text)
