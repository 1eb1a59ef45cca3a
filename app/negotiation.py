"""Which of the offered content types a client wants, by its `Accept` headers (RFC 9110, 12.5.1).

Knows nothing of what is offered. Invariant: without a header, or with `*/*`, the first offer wins.
"""

from collections.abc import Sequence

from fastapi import Request

from app.errors import Problem


def negotiated(request: Request, offered: Sequence[str]) -> str:
    """The offered type that the request prefers. Raises Problem (406), naming the offers, if it accepts none."""
    kind = preferred(",".join(request.headers.getlist("accept")), offered)
    if kind is None:
        raise Problem(406, "not_acceptable", f"This can be had as {', '.join(offered)}.")
    return kind


def preferred(accept: str | None, offered: Sequence[str]) -> str | None:
    """The offered type with the highest quality, earlier ones before later; None if none is acceptable."""
    if not accept or not accept.strip():
        return offered[0]
    ranges = _ranges(accept)
    best = max(offered, key=lambda kind: _quality(kind, ranges))
    return best if _quality(best, ranges) > 0 else None


def _ranges(accept: str) -> dict[str, float]:
    ranges = {}
    for part in accept.split(",")[:50]:
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        ranges[kind] = _q(parameters)
    return ranges


def _q(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                return 0.0
    return 1.0


def _quality(kind: str, ranges: dict[str, float]) -> float:
    """The most specific range that covers the type decides."""
    for covering in (kind, kind.split("/")[0] + "/*", "*/*"):
        if covering in ranges:
            return ranges[covering]
    return 0.0
