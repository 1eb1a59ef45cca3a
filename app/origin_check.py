"""Keeps web pages of other origins from driving a service that asks for no key.

Knows headers alone, no route. Two ways lead a page in the user's own browser to a service on loopback. DNS rebinding:
the page's own name is made to resolve to 127.0.0.1, and requests carry that name as `Host`. Plain cross-site requests:
a form or `fetch` to http://127.0.0.1:8000, which the browser marks with `Origin` or `Sec-Fetch-Site`. Invariant: what
passes came from no browser, from our own pages, from an origin that a setting names, or is a link that a person follows
to a page of its own: never a frame, in which clicks would be stolen.
"""

from collections.abc import Awaitable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.authority import parse_authority, parse_origin
from app.errors import Problem

OWN_SITE = ("same-origin", "none", "")
"""Values of `Sec-Fetch-Site` that our pages and typed addresses have, and its absence."""


class RefuseOtherOrigins:
    """ASGI middleware: 403 for a foreign `Host`, `Origin` or cross-site request.

    `hosts` are names that the service is reached by beside `localhost`; an address needs no name and cannot be rebound.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._origins = frozenset(origins)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and (refusal := self._refusal(scope["method"], Headers(scope=scope))):
            return refusal.response()(scope, receive, send)
        return self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            detail = f"The service is not known as {host!r}; CHARSMITH_ALLOWED_HOSTS may name it."
            return Problem(403, "foreign_host", detail)
        origins = headers.getlist("origin")
        if not origins:
            return self._cross_site(method, headers)
        if len(origins) == 1 and self._is_welcome(origins[0], host):
            return None
        detail = f"Pages of {', '.join(origins)!r} may not call this service; CHARSMITH_CORS_ORIGINS may name them."
        return Problem(403, "foreign_origin", detail)

    def _is_welcome(self, origin: str, host: str) -> bool:
        """Whether it is an origin of the settings, or our own by either scheme: a proxy may speak TLS for us."""
        found = parse_origin(origin)
        return origin in self._origins or (found is not None and found == parse_origin(f"{found[0]}://{host}"))

    def _cross_site(self, method: str, headers: Headers) -> Problem | None:
        """Requests that carry no origin, as for an image, a script or a frame; a link that is followed may pass."""
        asked_for = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
        followed = method in ("GET", "HEAD") and asked_for == ("navigate", "document")
        if followed or headers.get("sec-fetch-site", "") in OWN_SITE:
            return None
        return Problem(403, "foreign_origin", "Pages of other sites may not call this service.")

    def _is_ours(self, host: str) -> bool:
        authority = parse_authority(host)
        if authority is None:
            return False
        name = authority.host
        return name == "localhost" or name.endswith(".localhost") or name in self._hosts or authority.is_address
