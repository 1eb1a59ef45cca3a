"""Which methods a path takes: what `Allow` says beside a 405 (RFC 9110, 15.5.6).

Knows the app by its OpenAPI document alone. The framework's own header names the methods of the first route that has
the path, and `GET` and `POST` of one path are two routes; it knows no `HEAD` either, which goes wherever `GET` does,
except on streams: their answer begins only when there is something to say.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.routing import compile_path

STREAM = "text/event-stream"


class AllowedMethods:
    """Looks a path up; the document is read once, when all routes are there."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._known: list[tuple[re.Pattern[str], list[str]]] | None = None

    def of(self, path: str) -> list[str]:
        """In alphabetical order; empty for a path that the document does not have."""
        if self._known is None:
            paths = self._app.openapi()["paths"]
            self._known = [(compile_path(path)[0], list(_methods(paths[path]))) for path in paths]
        return sorted({method for pattern, methods in self._known if pattern.match(path) for method in methods})


def _methods(operations: Mapping[str, Any]) -> Iterator[str]:
    yield from (method.upper() for method in operations)
    if "get" in operations and STREAM not in operations["get"]["responses"]["200"].get("content", {}):
        yield "HEAD"
