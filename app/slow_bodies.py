"""Bodies that hardly come: each would hold a connection and a spool for as long as its client likes. They get 408.

Knows no route. Pure ASGI: `BaseHTTPMiddleware` would hide disconnects. Invariant: a body is waited for no longer than
`IDLE_SECONDS` at a time and, all in all, as long as so many bytes take at the slowest pace that is borne. Only waiting
for the client counts, not what the database or the disk takes, nor that this process itself stood still.
"""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.body_limit import has_body
from app.errors import Problem

IDLE_SECONDS = 30.0
"""Without a byte. Apache's and nginx' own limits are 20 to 60."""
GRACE_SECONDS = 60.0
"""For the first bytes, at whatever pace."""
SLOWEST_BYTES_PER_SECOND = 4096
"""Beyond the grace. A bad line of a telephone is ten times as fast; 1 GiB may take three days."""

LOOK_SECONDS = 1.0
"""A wait is counted in looks of so many seconds; one that took over twice as long says nothing of the client: the event
loop stood still (a paused container, a suspended machine), and what has come meanwhile is only now being read."""


class EndSlowBodies:
    """ASGI middleware: whoever reads a body that comes too slowly gets Problem 408 in its place."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        body = _Body(receive, Headers(scope=scope))

        def noting_send(message: Message) -> Awaitable[None]:
            body.ended = True  # an answer has begun: whoever listens now waits for the client to leave
            return send(message)

        return self._app(scope, body.receive, noting_send)


def too_slow() -> Problem:
    """408, for a client that may try again on a better line."""
    detail = (
        f"The body came too slowly: it may stand still for {IDLE_SECONDS:g} seconds, and must come at "
        f"{SLOWEST_BYTES_PER_SECOND} bytes a second on the mean, after the first {GRACE_SECONDS:g} seconds."
    )
    return Problem(408, "body_too_slow", detail, headers={"Connection": "close"})


class _Body:
    """The request's body as it comes; remembers how long it was waited for."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        self._receive = receive
        self._left = GRACE_SECONDS
        self.ended = not has_body(headers)

    def receive(self) -> Awaitable[Message]:
        """The next message. Raises Problem in place of a piece that does not come in time."""
        return self._receive() if self.ended else self._next_piece()

    async def _next_piece(self) -> Message:
        waited = 0.0
        while True:
            message, seconds = await self._look(min(LOOK_SECONDS, IDLE_SECONDS - waited, self._left))
            waited += seconds
            self._left -= seconds
            if message is not None:
                break
            if waited >= IDLE_SECONDS or self._left <= 0:
                raise too_slow()
        self._left += len(message.get("body", b"")) / SLOWEST_BYTES_PER_SECOND
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def _look(self, seconds: float) -> tuple[Message | None, float]:
        """What comes within so many seconds, if anything, and how many of those that it took count."""
        began, message = time.monotonic(), None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                message = await self._receive()
        took = time.monotonic() - began
        return message, took if took <= 2 * LOOK_SECONDS else 0.0
