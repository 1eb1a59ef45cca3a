"""Answers of Starlette's body limit, turned into problem documents.

Knows no route. When a request announces more bytes than its route takes, Starlette's limiter writes `413` as plain text
below every exception handler; so this sits around it. Pure ASGI: `BaseHTTPMiddleware` would hide disconnects.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TOO_LARGE, Problem


class TooLargeAsProblem:
    """ASGI middleware that answers the limiter's plain 413 in its place."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        replaced = False

        async def send_problem(message: Message) -> None:
            nonlocal replaced
            if _is_plain_413(message):
                replaced = True
                await too_large(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, send_problem)
        return None


too_large = Problem(413, "content_too_large", TOO_LARGE).response()


def _is_plain_413(message: Message) -> bool:
    if message["type"] != "http.response.start" or message["status"] != 413:
        return False
    return MutableHeaders(raw=list(message["headers"])).get("content-type", "").startswith("text/plain")
