"""What the OpenAPI document says beyond what FastAPI finds out by itself: problems, examples, a few words on the whole.

Invariants: every operation names its errors, all in the one schema `Problem`; Swagger UI shows every request filled in.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from app.access import OPEN, scopes_for
from app.errors import PROBLEM_JSON
from app.openai.document import speak_openai
from app.statuses import STATUSES

DESCRIPTION = """\
Charsmith trains character-level recurrent networks on your texts and streams what they write.

1. Upload a text: `POST /corpora`. Choose a file; the name `shakespeare` is filled in. (Without a chosen file Execute
   does nothing.)
2. Train on it: `POST /jobs`. Look how far it is with `GET /jobs/{id}`, and at its loss curve with
   `GET /jobs/{id}/loss.png`.
3. Let the model write: `POST /generate`, from its first checkpoint on. How likely it finds a text: `POST /score`.

On this page every request is filled in for a text of the name `shakespeare`, and runs as it stands once there is one,
or for models once there is a checkpoint: Execute is all there is to click. A text of another name, also one that was
uploaded before under another name, wants its name in the later requests.

Bodies of JSON need the header `Content-Type: application/json`, files a form (`curl -F file=@my.txt`); unknown fields
and parameters are refused.

Corpora, jobs and models are named by id or by name (the newest of that name). Errors are problem documents (RFC 9457).

Every answer has an `X-Request-ID`, the request's own if it sends a plain one; the log bears it, in the lines of a
training too.

Below `/v1` are the same texts, jobs, models and streams once more, as OpenAI's client calls them, and with its errors.

Once the installation has an API key (`charsmith keys create`), every call asks for one: `Authorization: Bearer KEY`, or
KEY as the password of a login, with any name. It is never taken from an address. Each call says which scope it needs.
"""

SECURITY_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, `csk_...`, as a token."},
    "login": {
        "type": "http",
        "scheme": "basic",
        "description": "An API key as the password, with any name: for browsers, which know no tokens.",
    },
}
"""Not needed as long as the installation has no keys."""

TAGS = [
    {"name": "corpora", "description": "Texts to train on."},
    {"name": "jobs", "description": "Trainings: queued, running, finished."},
    {"name": "models", "description": "What trainings produced."},
    {"name": "generate", "description": "Text written by a model, and how likely it finds a text."},
    {
        "name": "openai",
        "description": "The same texts, jobs, models and streams in the dialect of OpenAI's API, for its clients.",
    },
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
    401: "The installation asks for an API key; there was none that is valid.",
    403: "The API key lacks the scope; or it comes from a web page of another site, or names a host that is not ours.",
    404: "There is no such thing.",
    406: "None of the content types that are asked for can be had.",
    408: "The body came too slowly, or not to its end.",
    409: "It does not go with what is there; the detail says why.",
    413: "The body is too large.",
    415: "The body is compressed; it must be sent as it is.",
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
    if media_type == "text/event-stream":  # of no type: some take it for its text, some for its events
        schema = {"description": "Server-sent events."}
    return {"description": "As asked for.", "content": {media_type: {"schema": schema}}}


def _problem_response(status: int) -> dict[str, Any]:
    schema, example = {"$ref": "#/components/schemas/Problem"}, _example_of(status)
    return {"description": example["detail"], "content": {PROBLEM_JSON: {"schema": schema, "example": example}}}


def _example_of(status: int) -> dict[str, Any]:
    title, code = STATUSES[status]
    example = {"type": "about:blank", "title": title, "status": status, "detail": EXPLAINED.get(status, title)}
    wrong = [{"field": "training.steps", "message": "must be at least 1, not 0"}]
    return example | {"code": code} | ({"errors": wrong} if status == 422 else {})


def operation_id(route: APIRoute) -> str:
    """A function's name: stable, and good to read in generated clients."""
    return route.name


def describe(app: FastAPI) -> None:
    """Let the app's document hold the schemas that `problems` refers to, and fill in what is required."""
    plain = app.openapi

    @cache  # requests are held against it
    def openapi() -> dict[str, Any]:
        document = plain()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem | {"title": "Problem"}
        speak_openai(document)
        _tell_access(document)
        _fill_in(document)
        _keep_to_3_1(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _tell_access(document: dict[str, Any]) -> None:
    """Every operation with the ways to show a key, and the scopes of which one is needed."""
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    for operation in _operations(document):
        if operation["operationId"] in OPEN:
            operation["security"] = []
            continue
        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
        scopes = " or ".join(f"`{scope}`" for scope in scopes_for(operation["operationId"]))
        operation["description"] += f"\n\nWhere keys are asked for: scope {scopes}."


def _fill_in(document: dict[str, Any]) -> None:
    """Every operation of the document with the `example`s that Swagger UI fills its requests in from.

    It does not look into the `examples` of a parameter's schema. Optional parameters stay empty or show their default:
    what they would narrow down or repeat is for a person to choose.
    """
    schemas = document["components"]["schemas"]
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["required"] and "examples" in parameter["schema"]:
                parameter["example"] = parameter["schema"]["examples"][0]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema = schemas.get(content["schema"].get("$ref", "").rsplit("/", 1)[-1], {})
            if "examples" in schema:
                content["example"] = _in_order(schema["examples"][0], schema["properties"])


def _in_order(example: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """As the fields are declared: in a schema's own examples pydantic sorts them by letters."""
    return {name: example[name] for name in properties if name in example}


def _keep_to_3_1(document: dict[str, Any]) -> None:
    """FastAPI describes server-sent events by `itemSchema`, a word of OpenAPI 3.2 that validators of 3.1 refuse."""
    for operation in _operations(document):
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                if content.pop("itemSchema", None) is not None:
                    content["schema"] = {"type": "string"}


def _operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]
