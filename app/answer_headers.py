"""Headers that every answer carries, whatever it is: against being shown inside of another site's page, and guessed at.

Knows no route. Our own page can be driven by clicks, and a page that frames it decides what a person sees of it
(clickjacking); so nothing here is ever framed. Pure ASGI: `BaseHTTPMiddleware` would hide disconnects. Here as in the
other middlewares what is merely handed on, with nothing to wait for or to catch, is no coroutine of its own: a stream
would hold three for each. Invariant: each of these headers stands once in every answer, refusals and unforeseen errors
included.
"""

from collections.abc import Awaitable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GUARDS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",  # the same for browsers that do not know the line above
    # A text or a picture is never run as something else; and a browser need not wait for 512 bytes to guess a type.
    "X-Content-Type-Options": "nosniff",
}


class GuardAnswers:
    """ASGI middleware, to be put around everything that answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        def send_guarded(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(GUARDS)
            return send(message)

        return self._app(scope, receive, send_guarded)
