"""The answer to a body that is too large, whoever found out: a problem document, and an end to the upload.

Knows no route. When a request announces more bytes than its route takes, Starlette's limiter writes `413` as plain text
below every exception handler, and uvicorn reads the rest of any body, however long, before it forgets it. So this sits
around both. Pure ASGI: `BaseHTTPMiddleware` would hide disconnects.
"""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TOO_LARGE, Problem

LINGER_BYTES = 16 * 1024 * 1024
LINGER_SECONDS = 2.0
"""So much more is read and dropped: a client that is still writing when the connection closes may lose the answer."""

_answer = Problem(413, "content_too_large", TOO_LARGE, headers={"Connection": "close"}).response()


class RefuseLargeBodies:
    """ASGI middleware that answers every 413 in its place, and closes the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        body = _Body(receive)
        refused = False

        async def send_unless_refused(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 413:
                refused = True
                await _refuse(body, send)
            elif not refused:
                await send(message)

        return await self._app(scope, body.receive, send_unless_refused)


class _Body:
    """The request's body as it comes; remembers whether it has ended."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drop(self, limit: int) -> None:
        """Read on, to the end or for about `limit` bytes."""
        while not self.ended and limit > 0:
            message = await self.receive()
            limit -= len(message.get("body", b""))


async def _refuse(body: _Body, send: Send) -> None:
    await send({"type": "http.response.start", "status": _answer.status_code, "headers": _answer.raw_headers})
    await send({"type": "http.response.body", "body": _answer.body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            await body.drop(LINGER_BYTES)
    await send({"type": "http.response.body", "body": b""})
