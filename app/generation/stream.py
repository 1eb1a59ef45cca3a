"""One stream: the text of one row, from the generation process to whoever reads it, and what can go wrong.

Knows the link that its row is on, not HTTP. Belongs to the event loop. Invariant: at most `GRANTED_CHARACTERS` (and the
end of a text, held back for a stop string; of a score `GRANTED_OF_SCORE`, and a piece) wait here, since the process is
granted more only as they are read.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Literal, Self

from app.generation.link import Link
from app.generation.protocol import Message

GRANTED_CHARACTERS = 4096
"""How far a row may write ahead of its reader: a second's work, and at most 16 KiB."""
GRANTED_OF_SCORE = 131_072
"""Of the document that tells a score: nine for each character of the text, of which there are 400,000 in a second."""
FED_CHARACTERS = 8192
"""Of a text to score that go to the process at once, which then works on it for a millisecond or two."""


class GenerationError(Exception):
    """The base of what can go wrong in generation."""


class TooManyStreams(GenerationError):
    """As many streams are open as may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} streams are open already, no more are taken")
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
    """Text as it is written: iterate over it, then `finish_reason` says why it ended. `evict` it in the end."""

    def __init__(self, stream_id: int, forget: Callable[["Stream"], None]) -> None:
        self.id = stream_id
        self.link: Link | None = None
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finish_reason: Literal["stop", "length"] | None = None
        self.characters = 0
        """How many were read."""
        self._forget = forget
        self._pieces: list[str] = []
        self._failure: GenerationError | None = None
        self._changed = asyncio.Event()
        self._granted = GRANTED_CHARACTERS
        self._ungranted = 0
        self._unsent: Iterator[tuple[str, bool]] = iter(())
        self._evicted = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """All the text that has come. Raises StreamFailed after the last of a text that broke off."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self.finish_reason is not None or self._evicted:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        text = "".join(self._pieces)
        self._pieces.clear()
        self.characters += len(text)
        self._grant(len(text))
        return text

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
        if self.admitted.done() and not self.admitted.cancelled():
            self.admitted.exception()  # seen: nobody else may be waiting for it
        if self.link is not None and self.finish_reason is None:
            self.link.say({"do": "evict", "row": self.id})

    # What follows is told by `Generation`, as the process tells it.

    def admit(self, link: Link, blob_id: str, request: Message) -> None:
        """Ask the process for a row."""
        self.link = link
        characters = request.pop("characters")
        link.say({"do": "admit", "row": self.id, "blob": blob_id, "request": request, "characters": characters})

    def score(self, link: Link, blob_id: str, request: Message) -> None:
        """Ask the process for a row that scores a text, and hold that ready."""
        self.link = link
        self._granted = GRANTED_OF_SCORE
        self._unsent = _pieces(request.pop("text"))
        message = {"do": "score", "row": self.id, "blob": blob_id, "request": request, "characters": self._granted}
        link.say(message)

    def feed(self) -> None:
        """The process wants the next piece of the text to score."""
        if self.link is not None and (piece := next(self._unsent, None)):
            self.link.say({"do": "feed", "row": self.id, "text": piece[0], "last": piece[1]})

    def set_admitted(self) -> None:
        """The process has a row for it."""
        if not self.admitted.done():
            self.admitted.set_result(None)

    def take(self, text: str, finish_reason: Literal["stop", "length"] | None) -> None:
        """The process wrote more."""
        if text:
            self._pieces.append(text)
        self.finish_reason = finish_reason
        self._changed.set()

    def fail(self, failure: GenerationError) -> None:
        """No more will come. Does nothing to a text that has ended."""
        if self._failure is None and self.finish_reason is None:
            self._failure = failure
        if not self.admitted.done():
            refused = isinstance(failure, GenerationRefused)
            self.admitted.set_exception(failure if refused else GenerationUnavailable(str(failure)))
        self._changed.set()


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """A text, cut, and of each piece whether it is the last."""
    for begin in range(0, len(text), FED_CHARACTERS):
        end = begin + FED_CHARACTERS
        yield text[begin:end], end >= len(text)
