"""Refusals of requests whose body is still under way: answered whole, and the upload ended.

Knows no route. When a request announces more bytes than its route takes, Starlette's limiter writes `413` as plain text
below every exception handler; that becomes a problem document here. And after any refusal uvicorn would read the rest
of the body, however long, before it forgets it. So this sits around everything else. Pure ASGI: `BaseHTTPMiddleware`
would hide disconnects.
"""

import asyncio
import contextlib
from collections.abc import Awaitable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import PROBLEM_JSON, too_large

LINGER_BYTES = 16 * 1024 * 1024
LINGER_SECONDS = 2.0
"""So much more is read and dropped: a client that is still writing when the connection closes may lose the answer."""

_too_large = too_large().response()


def has_body(headers: Headers) -> bool:
    """Whether a request with these headers has a body, be it one that is still to come."""
    return headers.get("content-length", "").strip("0") != "" or "transfer-encoding" in headers


class EndRefusedUploads:
    """ASGI middleware: after an error that comes before the body's end, the connection is closed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        body = _Body(receive, Headers(scope=scope))
        return self._app(scope, body.receive, _Answer(body, send).send)


class _Answer:
    """The answer on its way out."""

    def __init__(self, body: "_Body", send: Send) -> None:
        self._body = body
        self._send = send
        self._cuts = False
        self._replaced = False

    def send(self, message: Message) -> Awaitable[None]:
        begins = message["type"] == "http.response.start"
        is_error = begins and message["status"] >= 400
        return self._send_error(message) if is_error or self._cuts or self._replaced else self._send(message)

    async def _send_error(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._cuts = not self._body.ended
            headers = MutableHeaders(scope=message)
            self._replaced = message["status"] == 413 and headers.get("content-type") != PROBLEM_JSON
            if self._replaced:
                headers.update(_too_large.headers)  # what others have added stays: that a page may read it, say
            if self._replaced or self._cuts:
                headers["connection"] = "close"
            await self._send(message)
            if self._replaced:
                await self._end(bytes(_too_large.body))
        elif self._cuts and not message.get("more_body", False):
            if not self._replaced:
                await self._end(message.get("body", b""))
        elif not self._replaced:
            await self._send(message)

    async def _end(self, last: bytes) -> None:
        """The end of the answer, then of the upload, then of the connection."""
        await self._send({"type": "http.response.body", "body": last, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self._body.drop(LINGER_BYTES)
        await self._send({"type": "http.response.body", "body": b""})


class _Body:
    """The request's body as it comes; remembers whether it has ended."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        self._receive = receive
        self.ended = not has_body(headers)

    def receive(self) -> Awaitable[Message]:
        return self._receive() if self.ended else self._noted()

    async def _noted(self) -> Message:
        message = await self._receive()
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drop(self, limit: int) -> None:
        """Read on, to the end or for about `limit` bytes."""
        while not self.ended and limit > 0:
            message = await self.receive()
            limit -= len(message.get("body", b""))
