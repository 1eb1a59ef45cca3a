"""Asks every request for an API key, once the installation has one: before anything is routed, read or validated.

Knows headers and which routes are open, by the routes themselves: what they would answer is what passes, so that no
spelling of an address leads around it. What a key may do is for `app.access`. Pure ASGI: `BaseHTTPMiddleware` would
hide disconnects. Invariants: a missing, malformed, unknown, revoked and expired key get one and the same answer; what
has to be read from the database is read in a thread.
"""

import base64
import binascii
from collections.abc import Callable, Sequence

import anyio
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Problem, ProblemResponse, problem_of
from app.store.api_keys import ApiKey
from app.store.database import Database
from app.store.errors import StoreError
from app.store.key_ring import KeyRefused, KeyRing

LONGEST_CREDENTIALS = 1024
"""Ours have a tenth of it; what is longer is not even decoded."""
LOOKS_AT_ONCE = 8
"""Threads of its own: all others may be waiting for a database that is locked for writers."""
CHALLENGES = ('Bearer realm="Charsmith"', 'Basic realm="Charsmith", charset="UTF-8"')
"""A header each: browsers do not take two of them apart, and one that cannot speak Bearer asks for a password."""
REFUSED = (
    "This installation asks for an API key: send `Authorization: Bearer KEY`, or KEY as the password of a login. "
    "There was none, or it is not valid (any more); `charsmith keys create` makes one."
)


class AskForKey:
    """ASGI middleware: leaves the key, or None where none is asked for, in the request's state, beside a way to ask
    again later; or answers 401."""

    def __init__(self, app: ASGIApp, database: Callable[[], Database], open_routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._database = database
        self._open = open_routes
        self._ring: KeyRing | None = None
        self._threads = anyio.CapacityLimiter(LOOKS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        state, headers = scope.setdefault("state", {}), Headers(scope=scope)
        state["is_stranger"] = lambda: self._is_stranger(headers)
        state["is_refused"] = lambda: self._is_refused(headers)
        if self._is_open(scope):
            return await self._app(scope, receive, send)
        try:
            state["key"] = await self._key(headers)
        except KeyRefused:
            return await refusal()(scope, receive, send)
        except StoreError as error:
            return await problem_of(error).response()(scope, receive, send)
        await self._app(scope, receive, send)

    async def _is_stranger(self, headers: Headers) -> bool:
        """For open routes that have something to tell to those alone who could ask for more."""
        try:
            return await self._is_refused(headers)
        except StoreError:  # who cannot be told from a stranger is one
            return True

    async def _is_refused(self, headers: Headers) -> bool:
        """For answers that outlast the moment in which the key was asked for. Raises StoreError."""
        try:
            await self._key(headers)
        except KeyRefused:
            return True
        return False

    def _is_open(self, scope: Scope) -> bool:
        """Whether one of the open routes would answer; to `HEAD` they do what they do to `GET`."""
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        return any(route.matches(asked)[0] is Match.FULL for route in self._open)

    async def _key(self, headers: Headers) -> ApiKey | None:
        database = self._database()
        if self._ring is None or self._ring.database is not database:
            self._ring = KeyRing(database)
        commits, keys = self._ring.held()
        if keys is None:
            keys = await anyio.to_thread.run_sync(self._ring.read, commits, limiter=self._threads)
        return keys.recognize(presented(headers), database.now())


def presented(headers: Headers) -> str | None:
    """What a request shows as its key: a token, or the password of a login; None if that cannot be told."""
    given = headers.getlist("authorization")
    scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    credentials = credentials.strip()
    if len(credentials) > LONGEST_CREDENTIALS:
        return None
    match scheme.lower():
        case "bearer":
            return credentials
        case "basic":
            return _password(credentials)
    return None


def _password(credentials: str) -> str | None:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return None


def refusal() -> ProblemResponse:
    """401, the same whatever is wrong."""
    answer = Problem(401, "invalid_key", REFUSED).response()
    for challenge in CHALLENGES:
        answer.headers.append("WWW-Authenticate", challenge)
    return answer
