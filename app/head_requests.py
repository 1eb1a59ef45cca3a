"""`HEAD` wherever there is `GET`: the same status and headers, and nothing after them (RFC 9110, 9.3.2).

Knows no route. Pure ASGI: `BaseHTTPMiddleware` would hide disconnects. Invariant: no more of the answer is made than
its first piece, however large a text or model is.
"""

from collections.abc import Awaitable

from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.allowed_methods import AllowedMethods


class _HeadSent(OSError):
    """Ends the making of a body, as the loss of the connection would."""


class AnswerHead:
    """ASGI middleware: lets the app answer `HEAD` as `GET`, up to the body."""

    def __init__(self, app: ASGIApp, described: FastAPI) -> None:
        self._app = app
        self._allowed = AllowedMethods(described)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "HEAD" or not self._has_get(scope["path"]):
            return self._app(scope, receive, send)
        return self._answer_head(scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_sent = False

        async def send_head(message: Message) -> None:
            nonlocal is_sent
            scope["route"] = inner.get("route")  # for those around us who count requests by it
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            is_sent = True
            raise _HeadSent

        inner: Scope = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send_head)
        except (_HeadSent, ClientDisconnect):  # a stream makes the one of the other
            if not is_sent:
                raise

    def _has_get(self, path: str) -> bool:
        methods = self._allowed.of(path)
        return not methods or "HEAD" in methods  # /docs and the like are in no document
