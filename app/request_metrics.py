"""How many requests were answered, how fast, and how long streams took to their first character.

Knows no route and no database. Pure ASGI, and what is handed on is no coroutine of its own: a stream that nobody reads
would hold it. Invariants: a request is counted once, when its answer begins; labels come from a bounded set, never from
what a client wrote; each app has a registry of its own.
"""

import time
from collections.abc import Awaitable

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FIRST_CHARACTER = "charsmith.first_character"
"""Where a request's scope has what to call when the first character of a stream goes out."""
NO_ROUTE = "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""A short answer takes 3 ms; a text asked for as a whole, or a model that has to be loaded, up to a minute."""


class RequestMetrics:
    """What one app counts of its own requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels, registry = ("method", "route"), self.registry
        self.requests = Counter(
            "charsmith_requests", "Requests whose answer has begun.", (*labels, "status"), registry=registry
        )
        self.seconds = Histogram(
            "charsmith_request_seconds",
            "From a request's head to the beginning of its answer.",
            labels,
            buckets=SECONDS,
            registry=registry,
        )
        self.first_character = Histogram(
            "charsmith_first_character_seconds",
            "From a request's head to the first character of its streamed text.",
            buckets=SECONDS,
            registry=registry,
        )


class CountRequests:
    """ASGI middleware, to be put around everything that answers."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        began, metrics = time.perf_counter(), self._metrics

        def send_counted(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in METHODS else "other"
                route = getattr(scope.get("route"), "path", NO_ROUTE)
                metrics.requests.labels(method, route, message["status"]).inc()
                metrics.seconds.labels(method, route).observe(time.perf_counter() - began)
            return send(message)

        scope[FIRST_CHARACTER] = lambda: metrics.first_character.observe(time.perf_counter() - began)
        return self._app(scope, receive, send_counted)
