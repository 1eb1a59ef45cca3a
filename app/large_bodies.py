"""Bodies that are held in memory as a whole, many at once: beyond so many bytes together they are refused.

Uploads go to the disk; a prompt or a text to score is read before anything is known of it, also before it has a place
among the streams. Knows the calls that read such, and no more of them. Pure ASGI: `BaseHTTPMiddleware` would hide
disconnects. Invariants: small bodies are never refused; of large ones, until their answers begin, no more is held than
the budget and a piece for each connection.
"""

from collections.abc import Awaitable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.crowd import OPENING, SMALL_BYTES
from app.errors import RETRY_SECONDS, Problem

BUDGET_BYTES = 256 * 1024 * 1024
"""Of all together. Parsed, a body takes two or three times its size for a moment."""


class BoundLargeBodies:
    """ASGI middleware: 429 for a body that would be too much beside those that are under way."""

    def __init__(self, app: ASGIApp, largest: int, budget: int = BUDGET_BYTES) -> None:
        """`largest` is the most bytes that one request may send: alone it always can."""
        self._app = app
        self._budget = max(budget, largest)
        self._held = 0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or (scope["method"], scope["path"]) not in OPENING:
            return self._app(scope, receive, send)
        return self._counted(_Share(self), scope, receive, send)

    async def _counted(self, share: "_Share", scope: Scope, receive: Receive, send: Send) -> None:
        announced = Headers(scope=scope).get("content-length", "")
        # More than the budget is more than any route takes: it is refused for its size, by who would read it.
        whole = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
        is_counted = 0 < whole <= self._budget

        async def counting_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not is_counted:
                share.take(len(message.get("body", b"")))
            return message

        async def noting_send(message: Message) -> None:
            share.give_back()  # it has a place among the streams now, or is refused
            await send(message)

        try:
            if is_counted:
                share.take(whole)
        except Problem as refusal:
            return await refusal.response()(scope, receive, send)
        try:
            await self._app(scope, counting_receive, noting_send)
        finally:
            share.give_back()

    def hold(self, size: int, *, of_small: bool) -> None:
        """So many bytes more are held, or fewer. Raises Problem if they are too many, unless of a small body."""
        if not of_small and self._held + size > self._budget:
            raise too_many()
        self._held += size


class _Share:
    """What one request holds of the budget."""

    def __init__(self, all_of_them: BoundLargeBodies) -> None:
        self._all = all_of_them
        self._bytes = 0

    def take(self, size: int) -> None:
        """Raises Problem if so many bytes more would be too many."""
        self._all.hold(size, of_small=self._bytes + size <= SMALL_BYTES)
        self._bytes += size

    def give_back(self) -> None:
        """Once or more often."""
        self._all.hold(-self._bytes, of_small=True)
        self._bytes = 0


def too_many() -> Problem:
    """429, for a body that may come later."""
    detail = "Too many large bodies are under way at the moment; try again later."
    return Problem(429, "too_many_large_bodies", detail, headers={"Retry-After": RETRY_SECONDS})
