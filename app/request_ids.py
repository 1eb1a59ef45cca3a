"""Every request has an id, in its answer and in the lines that are logged while it is handled.

Pure ASGI; what is handed on is no coroutine of its own. Invariant: an id is 1 to 64 plain characters, whatever a client
sent, so it can stand in any log.
"""

import re
import secrets
from collections.abc import Awaitable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import REQUEST_ID

HEADER = "X-Request-ID"
_TAKEN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class NameRequests:
    """ASGI middleware, to be put around everything that answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        told = Headers(scope=scope).get(HEADER, "")
        request_id = told if _TAKEN.fullmatch(told) else secrets.token_hex(8)
        # Each request is a task of the server's with a context of its own: there is nothing to set back.
        REQUEST_ID.set(request_id)

        def send_named(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            return send(message)

        return self._app(scope, receive, send_named)
