"""Refuses a crowd before it costs anything: when every stream is open, nobody's request for one is even read.

Knows the paths that open streams, and no more of them. Pure ASGI: a refusal that went through routing, validation and
tasks of its own would take twice as long, and a thousand clients that come at once wait for one another. Invariant:
only what `hold_places` would refuse is refused here; it still decides for what passes, and for `n` texts at once.
"""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import problem_of
from app.generation.streams import TooManyStreams

OPENING = {"/generate": ("GET", "POST"), "/score": ("POST",)}
"""The methods by which a path opens a stream."""


class RefuseCrowds:
    """ASGI middleware: 429 while `full()` tells why there is no place. Whoever may not ask at all is told so before."""

    def __init__(self, app: ASGIApp, full: Callable[[], TooManyStreams | None]) -> None:
        self._app = app
        self._full = full

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in OPENING.get(scope["path"], ()) and (full := self._full()):
            return await problem_of(full).response()(scope, receive, send)
        return await self._app(scope, receive, send)
