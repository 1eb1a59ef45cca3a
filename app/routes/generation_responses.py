"""How texts of streams are answered: as plain text, as server-sent events, or whole as JSON.

Knows HTTP and streams. Invariants: rows are evicted when the response's own `__call__` ends, however it ends (the
`finally` of a generator would not run promptly when the client leaves while the generator is parked); a text that broke
off is never taken for a whole one.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.types import Receive, Scope, Send

from app.broken_answers import break_off
from app.errors import Problem
from app.generation.streams import Samples, Stream, StreamFailed
from app.protocol import PATIENCE
from app.request_metrics import FIRST_CHARACTER

log = logging.getLogger(__name__)

SILENT_SECONDS = 15.0
"""Server-sent events: a comment after so long without text, as while a long prompt is read; a proxy would give up."""

STREAMED = {
    "X-Accel-Buffering": "no",  # nginx would hold the text back
    "Cache-Control": "no-store",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """What the answer says about its texts; with the prompt and settings, enough to get the same again."""

    seed: int
    model: str
    checkpoint_step: int
    sign: Callable[[str], str]
    """A row's state as clients get it."""

    def headers(self) -> dict[str, str]:
        return {
            "X-Seed": str(self.seed),
            "X-Model": self.model,
            "X-Checkpoint-Step": str(self.checkpoint_step),
            **STREAMED,
        }

    def origin(self) -> dict[str, Any]:
        return {"seed": self.seed, "model": self.model, "checkpoint_step": self.checkpoint_step}

    def ending(self, stream: Stream) -> dict[str, Any]:
        return {
            "finish_reason": stream.finish_reason,
            "characters": stream.characters,
            "held_back": stream.held_back,
            "state": None if stream.state is None else self.sign(stream.state),
        }

    def endings(self, samples: Samples) -> dict[str, Any]:
        """How one text ended, or each of several, and where they are from."""
        if len(samples.streams) == 1:
            return self.ending(samples.streams[0]) | self.origin()
        ended = [{"index": index} | self.ending(stream) for index, stream in enumerate(samples.streams)]
        return {"samples": ended} | self.origin()


class RowResponse(StreamingResponse):
    """A response that owns rows."""

    def __init__(self, samples: Samples, headers: Mapping[str, str]) -> None:
        self._samples = samples
        super().__init__(self._body(), headers=headers)

    def _body(self) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PATIENCE] = self._samples.reader_seconds
        try:
            await super().__call__(scope, receive, send)
        except StreamFailed as error:
            log.warning("a stream broke off: %s", error)
            break_off(scope)
        finally:
            self._samples.evict()


class TextResponse(RowResponse):
    """A response whose rows write texts."""

    def __init__(self, samples: Samples, told: Told) -> None:
        self._told = told
        self._tell_first: Callable[[], None] | None = None
        super().__init__(samples, told.headers())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._tell_first = scope.get(FIRST_CHARACTER)
        await super().__call__(scope, receive, send)

    def _note_text(self, text: str) -> None:
        """Call it with each piece that is about to go out: the first character is told, once."""
        if text and self._tell_first is not None:
            self._tell_first()
            self._tell_first = None


class PlainText(TextResponse):
    """The characters of one text as they are written, and nothing else."""

    media_type = "text/plain"

    async def _body(self) -> AsyncIterator[bytes]:
        async for _, text in self._samples:
            self._note_text(text)
            yield text.encode()
        # There is no state to go on from: the text is over, and its last characters are no stop string.
        yield self._samples.streams[0].held_back.encode()


class Events(TextResponse):
    """`data: {"text": ...}` again and again, with an `index` if there are several; last `event: done` or `error`."""

    media_type = "text/event-stream"

    async def _body(self) -> AsyncIterator[bytes]:
        several = len(self._samples.streams) > 1
        try:
            async for index, text in or_silence(self._samples):
                if text is None:
                    yield KEEPALIVE_COMMENT
                else:
                    self._note_text(text)
                    yield format_sse_event(
                        data_str=_json({"index": index, "text": text} if several else {"text": text})
                    )
        except StreamFailed as error:
            log.warning("a stream broke off: %s", error)
            yield format_sse_event(event="error", data_str=_json(broken_off(error).document()))
        else:
            yield format_sse_event(event="done", data_str=_json(self._told.endings(self._samples)))


async def whole_text(samples: Samples, told: Told, receive: Receive) -> Response:
    """The whole texts as JSON, once they are complete. Raises Problem if one broke off."""
    texts = await whole_texts(samples, receive)
    if texts is None:
        return nobody_listens()
    document = told.endings(samples)
    if len(texts) == 1:
        document = {"text": texts[0]} | document
    else:
        document["samples"] = [{"text": text} | one for text, one in zip(texts, document["samples"], strict=True)]
    return JSONResponse(document, headers=told.headers())


async def whole_texts(samples: Samples, receive: Receive) -> list[str] | None:
    """Each text, once all are complete; None, and the rows are ended, if the client leaves before.

    Raises Problem if one broke off.
    """
    try:
        return await while_connected(receive, _collected(samples))
    except StreamFailed as error:
        raise broken_off(error) from None
    finally:
        samples.evict()


def broken_off(error: StreamFailed) -> Problem:
    """The problem of a text that could not be written to its end."""
    return Problem(503, "generation_failed", f"The text broke off: {error}.", headers={"Retry-After": "1"})


def nobody_listens() -> Response:
    """What is answered to a client that has left: nobody will read it. nginx logs the same status for it."""
    return Response(status_code=499)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None, and the work is cancelled, if the client leaves before."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _collected(samples: Samples) -> list[str]:
    """The texts of all streams, each as a whole. Raises StreamFailed."""
    texts: list[list[str]] = [[] for _ in samples.streams]
    async for index, text in samples:
        texts[index].append(text)
    return ["".join(pieces) for pieces in texts]


async def or_silence(samples: Samples) -> AsyncIterator[tuple[int, str | None]]:
    """What the streams say; None whenever that was nothing for a while."""
    with suppress(StopAsyncIteration):
        while True:
            said: tuple[int, str | None] = (0, None)
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENT_SECONDS):
                    said = await anext(samples)
            yield said


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
