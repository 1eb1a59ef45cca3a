"""Bodies that are compressed: refused, since a few kilobytes of them may be gigabytes.

Knows no route. Pure ASGI: `BaseHTTPMiddleware` would hide disconnects. Invariant: no byte of a coded body is read for
what it is.
"""

from collections.abc import Awaitable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.body_limit import has_body
from app.errors import Problem


class RefuseCodedBodies:
    """ASGI middleware: 415 for a body with a `Content-Encoding`, saying that it is to be sent as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or not _is_coded(Headers(scope=scope)):
            return self._app(scope, receive, send)
        detail = "Bodies with a Content-Encoding are not taken: send it as it is, not compressed."
        # RFC 9110, 12.5.3: with a 415 the header says what would have been taken.
        problem = Problem(415, "unsupported_encoding", detail, headers={"Accept-Encoding": "identity"})
        return problem.response()(scope, receive, send)


def _is_coded(headers: Headers) -> bool:
    """Whether there is a body, and one that is not as it is."""
    codings = ",".join(headers.getlist("content-encoding")).split(",")
    return has_body(headers) and any(coding.strip().lower() not in ("", "identity") for coding in codings)
