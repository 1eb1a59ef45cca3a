"""Refuses a crowd before it costs much: when every stream is open, a request for one is neither routed nor validated.

Knows the calls that open streams, and no more of them. Pure ASGI: a refusal that went through routing, validation and
tasks of its own would take twice as long, and a thousand clients that come at once wait for one another. Invariant:
nothing is refused here while a place is free; what else is wrong with a request is told only then.
"""

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access import check_allowed
from app.errors import Problem, problem_of
from app.generation.streams import TooManyStreams

OPENING = {
    ("POST", "/generate"): "generate",
    ("GET", "/generate"): "generate_by_query",
    ("POST", "/score"): "score",
    ("POST", "/v1/completions"): "complete",
}
"""The calls that open a stream, by method and path."""
SMALL_BYTES = 64 * 1024
"""A body of so many is read before the refusal, so that its connection stays. Larger ones go by way of their route,
which reads all that it takes: cut off while it is still writing, a client may lose the answer."""


class RefuseCrowds:
    """ASGI middleware: 429 while `full` tells why there is no place for who sent the request. Who may not ask at all
    is told so before."""

    def __init__(self, app: ASGIApp, full: Callable[[Scope], TooManyStreams | None]) -> None:
        self._app = app
        self._full = full

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        full = self._full(scope) if _opens_stream(scope) else None
        return self._app(scope, receive, send) if full is None else _refuse(full, scope, receive, send)


async def _refuse(full: TooManyStreams, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
            pass
        check_allowed(scope["state"]["key"], OPENING[scope["method"], scope["path"]])
        refusal = problem_of(full)
    except Problem as problem:  # not allowed; or the service stops while the body is under way
        refusal = problem
    return await refusal.response()(scope, receive, send)


def _opens_stream(scope: Scope) -> bool:
    """Whether it is a request for a stream, with a small body or none."""
    if scope["type"] != "http" or (scope["method"], scope["path"]) not in OPENING:
        return False
    headers = Headers(scope=scope)
    length = headers.get("content-length", "0")
    return "transfer-encoding" not in headers and length.isdecimal() and int(length[:20]) <= SMALL_BYTES
