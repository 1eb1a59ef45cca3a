"""Every error that a client can see, as an RFC 9457 problem document.

Knows the store's errors by name, to give each its status in one table. Invariant: no route answers an error in another
form, and an unforeseen one tells nothing about the inside.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

PROBLEM_JSON = "application/problem+json"


class ProblemResponse(JSONResponse):
    """A problem document as a response."""

    media_type = PROBLEM_JSON


class Problem(Exception):  # noqa: N818  RFC 9457 calls it so
    """An answer that is an error: `code` is for programs, `detail` for people; `extra` fields join the document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.extra = extra

    def document(self) -> dict[str, Any]:
        """The problem as RFC 9457 writes it."""
        title = HTTPStatus(self.status).phrase
        body = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, "code": self.code}
        if self.errors is not None:
            body["errors"] = [dict(error) for error in self.errors]
        return body | self.extra

    def response(self) -> ProblemResponse:
        """The problem as an answer."""
        return ProblemResponse(self.document(), status_code=self.status, headers=dict(self.headers or {}))


def invalid(field: str, message: str, *, code: str = "invalid_request", **extra: Any) -> Problem:
    """422 for one field of the request."""
    return Problem(422, code, f"{field}: {message}", errors=[{"field": field, "message": message}], **extra)
