"""Requests that are under way when the service stops: none is left without a problem document.

Knows no route. A client that sends its body slower than the service ends would be waited for until uvicorn cancels the
request and answers in plain text. Invariant: a request that was not answered when the service stopped is told 503.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.body_limit import has_body
from app.errors import RETRY_SECONDS, Problem

LOOK_SECONDS = 0.5
"""How long a body that stands still keeps a stopping service waiting."""


def shutting_down() -> Problem:
    """The answer to what the service had no time for."""
    detail = "The service is shutting down; send it again when it is back."
    return Problem(503, "shutting_down", detail, headers={"Retry-After": RETRY_SECONDS})


class EndWithService:
    """ASGI middleware: as soon as `stopping()` is true nobody waits for bodies; what is cancelled is answered."""

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = False

        def noting_send(message: Message) -> Awaitable[None]:
            nonlocal begun
            begun = True
            return send(message)

        body = _Body(receive, Headers(scope=scope), self._stopping)
        try:
            await self._app(scope, body.receive, noting_send)
        except asyncio.CancelledError:
            if begun:
                raise
            await shutting_down().response()(scope, receive, send)


class _Body:
    """The request's body as it comes, as long as it comes."""

    def __init__(self, receive: Receive, headers: Headers, stopping: Callable[[], bool]) -> None:
        self._receive = receive
        self._stopping = stopping
        self._ended = not has_body(headers)

    def receive(self) -> Awaitable[Message]:
        """The next message. Raises Problem in place of a piece that does not come before the service stops."""
        return self._receive() if self._ended else self._noted()

    async def _noted(self) -> Message:
        message = await self._next_piece()
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def _next_piece(self) -> Message:
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    return await self._receive()
            except TimeoutError:
                if self._stopping():
                    raise shutting_down() from None
