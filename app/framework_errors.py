"""What the framework refuses before a route runs, as problems: unknown paths, wrong methods, bodies, fields.

Knows no route but by the OpenAPI document. Invariant: each message says what would have been right, and of what was
sent it repeats names only.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app.allowed_methods import AllowedMethods
from app.errors import MAX_FIELDS, Problem, invalid_fields, problem_of, too_large
from app.known_fields import KnownFields
from app.openai.absent import why_absent
from app.statuses import STATUSES
from app.store.errors import DiskFull
from app.store.room import NO_ROOM
from app.unreadable import SEND_A_FORM, is_form, json_reason, reason
from app.wording import words


def install(app: FastAPI) -> None:
    """Make the app answer what the framework refuses as problems."""
    app.add_exception_handler(HTTPException, _http_answer(AllowedMethods(app)))
    app.add_exception_handler(RequestValidationError, _answer_validation)


async def refuse_unknown_fields(request: Request) -> None:
    """Return if the call takes every field of the query and of the form. Raises Problem. As a dependency of routes.

    Bodies of JSON are checked by their models.
    """
    known = KnownFields(request)
    found = [(name, known.unknown_in_query(name)) for name in request.query_params if not known.in_query(name)]
    if known.form and is_form(_content_type(request)):  # it has been read already, with the limits of the app
        found += [(name, known.unknown_in_form(name)) for name in await request.form() if name not in known.form]
    if found:
        raise invalid_fields(found)


def fault_behind(error: HTTPException) -> Problem | None:
    """What to answer to a body that could not be read through no fault of its own; None if nothing of that kind.

    Whatever is raised while it reads a body, the framework tells as a 400, with the reason as its cause.
    """
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in NO_ROOM:  # a form's file is spooled to the disk
        return problem_of(DiskFull())
    return cause if isinstance(cause, Problem) else None


def _http_answer(allowed: AllowedMethods) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer_http(request: Request, error: Exception) -> Response:
        """Unknown paths and methods, bodies too large or not readable."""
        assert isinstance(error, HTTPException)
        if (fault := fault_behind(error)) is not None:
            return fault.response()
        if error.status_code == 413:
            return too_large().response()
        status, headers = error.status_code, dict(error.headers or {})
        methods = allowed.of(request.scope["path"])
        if status == 405 and methods:
            headers["Allow"] = ", ".join(methods)
        return Problem(status, STATUSES[status].code, _detail(request, error, methods), headers=headers).response()

    return answer_http


def _detail(request: Request, error: HTTPException, methods: Sequence[str]) -> str:
    match error.status_code:
        case 404:
            path = request.scope["path"]
            return why_absent(path) or f"There is nothing at {path!r}; the calls are listed at /docs."
        case 405 if methods:
            return f"{request.scope['path']} takes {', '.join(methods)}, not {request.method}."
    return reason(error, _content_type(request)) or str(error.detail)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "")


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    known = KnownFields(request)
    # A misspelt field first: that another one is missing follows from it.
    found = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")[:MAX_FIELDS]
    return invalid_fields([(_field(each["loc"]), _message(request, error, each, known)) for each in found]).response()


def _message(request: Request, error: RequestValidationError, found: Mapping[str, Any], known: KnownFields) -> str:
    location, content_type = tuple(found["loc"]), _content_type(request)
    came = f"this came {f'as {content_type[:100]}' if content_type else 'without a content type'}"
    match found["type"], location:
        case "json_invalid", ("body", int(position)):
            return json_reason(str(error.body), str(found["ctx"]["error"]), position)
        case _, ("body",) if isinstance(found.get("input"), bytes):  # FastAPI parses what is announced as JSON alone
            return f"must be sent with Content-Type: application/json; {came}"
        case "missing", ("body",):
            return "must be given, as JSON"
        case "missing", ("body", name) if name in known.files:
            return f"must be given: {SEND_A_FORM}" + ("" if is_form(content_type) else f"; {came}")
        case _, ("body", name) if name in known.files:
            return f"must be a file, not a text: {SEND_A_FORM}, with the @"
        case "extra_forbidden", ("body", *names):
            return known.unknown_in_body(names)
    return words(found)


def _field(location: Sequence[str | int]) -> str:
    """`training.steps` for (body, training, steps); `body` for what concerns all of it, as when it is not JSON."""
    if len(location) < 2 or (location[0] == "body" and isinstance(location[1], int)):
        return str(location[0]) if location else "request"
    # "[key]" is pydantic's for a name that is wrong, beside the name itself.
    return ".".join(str(part) for part in location[1:] if part != "[key]")
