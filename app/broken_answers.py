"""Answers that cannot be completed: their connection ends, so that no reader takes them for whole.

Knows no route and no server: ASGI has no word for it, so the server offers it as an extension of the request.
Invariant: the end of a whole answer does not arrive; what was sent before does. But where the end of the connection is
that of the answer (HTTP/1.0), the server resets it, which may cost the client a part of what was sent.
"""

from starlette.types import Scope

_EXTENSION, _IS_SO = "charsmith.broken_off", "is_so"


def offer(scope: Scope) -> None:
    """Let the app of this request say that its answer is broken off. For servers."""
    scope.setdefault("extensions", {})[_EXTENSION] = {_IS_SO: False}


def break_off(scope: Scope) -> None:
    """The answer to this request ends here. Whoever calls it sends nothing more and returns.

    A server that does not offer this ends the connection all the same, and complains.
    """
    if (offered := scope.get("extensions", {}).get(_EXTENSION)) is not None:
        offered[_IS_SO] = True


def is_broken_off(scope: Scope) -> bool:
    """Whether the app has said so. For servers, once it has returned."""
    return bool(scope["extensions"][_EXTENSION][_IS_SO])
