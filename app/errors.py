"""Every error that a client can see, as an RFC 9457 problem document.

Knows the domain's errors by name, to give each its status in one table; what the framework refuses is in
`app.framework_errors`. Invariant: no route answers an error in another form, and an unforeseen one tells nothing about
the inside.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from app.generation.stream import GenerationRefused, GenerationUnavailable, TooManyStreams
from app.statuses import STATUSES
from app.store.corpora import NotText
from app.store.errors import (
    Conflict,
    Corrupted,
    DatabaseUnreachable,
    DiskFull,
    InvalidCursor,
    NotFound,
    QueueFull,
    StoreError,
)
from app.store.names import InvalidName
from models.checkpoint_header import InvalidCheckpoint
from models.config import InvalidConfig

PROBLEM_JSON = "application/problem+json"
RETRY_SECONDS = "5"
MAX_TEXT = 500
"""A message may quote what was sent; not all of it."""
MAX_FIELDS = 20


class ProblemResponse(JSONResponse):
    """A problem document as a response. It may quote half a surrogate pair, which UTF-8 has not: that becomes `?`."""

    media_type = PROBLEM_JSON

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


class Problem(Exception):
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
        title = STATUSES[self.status].title
        detail = shortened(self.detail)
        body = {"type": "about:blank", "title": title, "status": self.status, "detail": detail, "code": self.code}
        if self.errors is not None:
            body["errors"] = [dict(error) for error in self.errors]
        return body | self.extra

    def response(self) -> ProblemResponse:
        """The problem as an answer."""
        return ProblemResponse(self.document(), status_code=self.status, headers=dict(self.headers or {}))


def invalid(field: str, message: str, *, code: str = "invalid_request", **extra: Any) -> Problem:
    """422 for one field of the request."""
    return invalid_fields([(field, message)], code=code, **extra)


def invalid_fields(found: Sequence[tuple[str, str]], *, code: str = "invalid_request", **extra: Any) -> Problem:
    """422 for fields of the request, each with a message; the first one is the detail."""
    errors = [{"field": shortened(field), "message": shortened(message)} for field, message in found[:MAX_FIELDS]]
    return Problem(422, code, f"{errors[0]['field']}: {errors[0]['message']}", errors=errors, **extra)


def too_large() -> Problem:
    """413, whoever notices."""
    return Problem(413, STATUSES[413].code, "The body is larger than this call takes.")


def not_found(error: NotFound) -> Problem:
    """404, saying what kind of thing is not there."""
    return Problem(404, f"{error.kind.replace(' ', '_')}_not_found", str(error))


def _later(status: int, code: str) -> Callable[[Exception], Problem]:
    return lambda error: Problem(status, code, str(error), headers={"Retry-After": RETRY_SECONDS})


PASSING = {"model_too_large", "load_failed", "checkpoint_gone"}
"""Refusals of the generation process that a later try may not meet: the fault is not the request's."""


FIELDS = {"unknown_character": "prompt", "unknown_id": "prompt", "nothing_allowed": "allowed_characters"}
"""What of a request is to blame, unless its route says otherwise."""


def refusal(error: GenerationRefused, field: str | None = None) -> Problem:
    """What the generation process refuses; `field` of the request is to blame, unless it is a matter of the moment."""
    if error.code in PASSING:
        return _later(503, error.code)(error)
    if error.code == "checkpoint_corrupted":
        return _corrupted(error)
    field = field or FIELDS.get(error.code)
    if field is None:
        return Problem(422, error.code, str(error), **error.fields)
    if error.code == "invalid_checkpoint":
        return _invalid_file(error)
    return invalid(field, str(error), code=error.code, **error.fields)


def _place(error: NotText) -> dict[str, int]:
    return {} if error.offset is None else {"byte_offset": error.offset}


def _invalid_file(error: Exception) -> Problem:
    return invalid("file", str(error), code="invalid_model_file")


def _corrupted(_: Exception) -> Problem:
    return Problem(500, "corrupted", "What is stored here was damaged; it is not given out.")


TABLE: dict[type[Exception], Callable[[Any], Problem]] = {
    NotFound: not_found,
    Conflict: lambda error: Problem(409, "conflict", str(error)),
    QueueFull: _later(429, "queue_full"),
    InvalidCursor: lambda error: invalid("after", f"{error.after!r} is not in this list", code="invalid_cursor"),
    InvalidName: lambda error: invalid("name", str(error), code="invalid_name"),
    InvalidConfig: lambda error: invalid(error.field, error.message, code="invalid_setting"),
    NotText: lambda error: invalid("file", str(error), code="not_text", **_place(error)),
    InvalidCheckpoint: _invalid_file,
    GenerationRefused: refusal,
    TooManyStreams: _later(429, "too_many_streams"),
    GenerationUnavailable: _later(503, "generation_unavailable"),
    Corrupted: _corrupted,
    DiskFull: lambda error: Problem(507, "disk_full", "The disk is full; delete something and try again."),
    DatabaseUnreachable: lambda _: Problem(
        503,
        "store_unavailable",
        "The database cannot be reached at the moment; if something was to be changed, whether it was is not known.",
        headers={"Retry-After": RETRY_SECONDS},
    ),
    # Whatever else the store raises, it changed nothing: locked for too long, say.
    StoreError: lambda _: Problem(
        503, "store_unavailable", "The database is not usable at the moment.", headers={"Retry-After": RETRY_SECONDS}
    ),
}
"""Which error of the domain is which problem; the nearest base class decides."""


def problem_of(error: Exception) -> Problem:
    """The problem that an error of the table is."""
    return next(TABLE[kind](error) for kind in type(error).__mro__ if kind in TABLE)


def install(app: FastAPI) -> None:
    """Make the app answer every error of ours as a problem, and every unforeseen one."""
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(Exception, _answer_unforeseen)
    for kind in TABLE:
        app.add_exception_handler(kind, _answer_domain)


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _answer_domain(request: Request, error: Exception) -> Response:
    return problem_of(error).response()


async def _answer_unforeseen(request: Request, error: Exception) -> Response:
    # Uvicorn closes the connection after an exception without saying so; the next request on it would be lost.
    headers = {"Connection": "close"}
    detail = "Something went wrong inside; the service's log says what."
    return Problem(500, "internal_error", detail, headers=headers).response()


def shortened(text: str) -> str:
    """The text, or its beginning."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
