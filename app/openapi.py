"""What the OpenAPI document says beyond what FastAPI finds out by itself: problems, and the service in a few words.

Invariant: every operation names its errors, all in the one schema `Problem`.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from app.errors import PROBLEM_JSON

DESCRIPTION = """\
Charsmith trains character-level recurrent networks on your texts and streams what they write.

1. Upload a text: `POST /corpora`.
2. Train on it: `POST /jobs`; watch `GET /jobs/{id}/events` or the picture `GET /jobs/{id}/loss.png`.
3. Let the model write: `POST /generate`, from its first checkpoint on.

Corpora and models are named by id or by name (the newest of that name). Errors are problem documents (RFC 9457).
"""

TAGS = [
    {"name": "corpora", "description": "Texts to train on."},
    {"name": "jobs", "description": "Trainings: queued, running, finished."},
    {"name": "models", "description": "What trainings produced."},
    {"name": "generate", "description": "Text written by a model."},
    {"name": "health", "description": "Whether the service can work."},
]


class FieldProblem(BaseModel):
    """What is wrong with one field of the request."""

    field: str = Field(examples=["training.steps"])
    message: str


class ProblemDocument(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(description="What went wrong, for people.")
    code: str = Field(description="What went wrong, for programs.", examples=["invalid_setting"])
    errors: list[FieldProblem] = Field(default=[], description="Which fields are wrong, where some are.")


EXPLAINED = {
    400: "It is no HTTP, or its body cannot be read.",
    403: "It comes from a web page of another site, or names a host that is not ours.",
    404: "There is no such thing.",
    406: "None of the content types that are asked for can be had.",
    409: "It does not go with what is there; the detail says why.",
    413: "The body is too large.",
    422: "A field is missing, unknown or out of range; `errors` names it.",
    429: "Too many wait already; come back after `Retry-After` seconds.",
    500: "A fault inside.",
    503: "Not usable at the moment; come back after `Retry-After` seconds.",
    507: "The disk is full; delete something first.",
}


def problems(*statuses: int, ok: Mapping[int | str, dict[str, Any]] | None = None) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may answer these errors; `ok` are further answers that are none."""
    return {**(ok or {}), **{status: _problem_response(status) for status in statuses}}


def body(media_type: str, *, binary: bool = False) -> dict[str, Any]:
    """A response whose body is not JSON."""
    schema = {"type": "string", "format": "binary"} if binary else {"type": "string"}
    return {"description": "As asked for.", "content": {media_type: {"schema": schema}}}


def _problem_response(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": EXPLAINED.get(status, HTTPStatus(status).phrase),
        "content": {PROBLEM_JSON: {"schema": schema}},
    }


def operation_id(route: APIRoute) -> str:
    """A function's name: stable, and good to read in generated clients."""
    return route.name


def describe(app: FastAPI) -> None:
    """Let the app's document hold the schemas that `problems` refers to."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem | {"title": "Problem"}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
