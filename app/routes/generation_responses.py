"""How a stream's text is answered: as plain text, as server-sent events, or whole as JSON.

Knows HTTP and streams. Invariants: the row is evicted when the response's own `__call__` ends, however it ends (the
`finally` of a generator would not run promptly when the client leaves while the generator is parked); a text that broke
off is never taken for a whole one.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.types import Message, Receive, Scope, Send

from app.errors import Problem
from app.generation.streams import Stream, StreamFailed

log = logging.getLogger(__name__)

SEND_SECONDS = 30.0
"""A client that takes nothing for so long is given up."""
SILENT_SECONDS = 15.0
"""Server-sent events: a comment after so long without text, as while a long prompt is read; a proxy would give up."""

STREAMED = {
    "X-Accel-Buffering": "no",  # nginx would hold the text back
    "Cache-Control": "no-store",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """What the answer says about its text; with the prompt and settings, enough to get the same text again."""

    seed: int
    model: str
    checkpoint_step: int

    def headers(self) -> dict[str, str]:
        return {
            "X-Seed": str(self.seed),
            "X-Model": self.model,
            "X-Checkpoint-Step": str(self.checkpoint_step),
            **STREAMED,
        }

    def ending(self, stream: Stream) -> dict[str, Any]:
        return {
            "finish_reason": stream.finish_reason,
            "characters": stream.characters,
            "seed": self.seed,
            "model": self.model,
            "checkpoint_step": self.checkpoint_step,
        }


class RowResponse(StreamingResponse):
    """A response that owns a row."""

    def __init__(self, stream: Stream, headers: Mapping[str, str]) -> None:
        self._stream = stream
        super().__init__(self._body(), headers=headers)

    def _body(self) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, _in_time(send))
        except StreamFailed as error:
            # Returning with the body unfinished makes the server close the connection without the last chunk.
            log.warning("a stream broke off: %s", error)
        except TimeoutError:
            log.info("a client took nothing for %g s, its stream was ended", SEND_SECONDS)
        finally:
            self._stream.evict()


class TextResponse(RowResponse):
    """A response whose row writes a text."""

    def __init__(self, stream: Stream, told: Told) -> None:
        self._told = told
        super().__init__(stream, told.headers())


class PlainText(TextResponse):
    """The characters as they are written, and nothing else."""

    media_type = "text/plain"

    async def _body(self) -> AsyncIterator[bytes]:
        async for text in self._stream:
            yield text.encode()


class Events(TextResponse):
    """`data: {"text": ...}` again and again, last `event: done` or `event: error`."""

    media_type = "text/event-stream"

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            async for text in or_silence(self._stream):
                yield KEEPALIVE_COMMENT if text is None else format_sse_event(data_str=_json({"text": text}))
        except StreamFailed as error:
            log.warning("a stream broke off: %s", error)
            yield format_sse_event(event="error", data_str=_json(broken_off(error).document()))
        else:
            yield format_sse_event(event="done", data_str=_json(self._told.ending(self._stream)))


async def whole_text(stream: Stream, told: Told, receive: Receive) -> Response:
    """The whole text as JSON, once it is complete. Ends the row when the client leaves before."""
    try:
        text = await while_connected(receive, _collect(stream))
    except StreamFailed as error:
        raise broken_off(error) from None
    finally:
        stream.evict()
    if text is None:
        return nobody_listens()
    return JSONResponse({"text": text, **told.ending(stream)}, headers=told.headers())


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


async def _collect(stream: Stream) -> str:
    return "".join([text async for text in stream])


async def or_silence(stream: Stream) -> AsyncIterator[str | None]:
    """The stream's texts; None whenever there was none for a while."""
    with suppress(StopAsyncIteration):
        while True:
            text = None
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENT_SECONDS):
                    text = await anext(stream)
            yield text


def _in_time(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def send_in_time(message: Message) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await send(message)

    return send_in_time


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
