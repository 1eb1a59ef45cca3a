"""The OpenAPI document's account of what is answered below `/v1`.

Knows the document alone. Invariant: errors are described there as `app.openai.dialect` tells them.
"""

from typing import Any

from pydantic import BaseModel, Field

from app.openai.dialect import STATUSES, error_of, is_openai

SCHEMA = "OpenAIError"


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI's API tells it."""

    message: str = Field(description="What went wrong, for people.")
    type: str
    param: str | None = Field(description="The field of the request that is to blame, where one is.")
    code: str | None = Field(description="What went wrong, for programs.")


class ErrorDocument(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorDetail


def speak_openai(document: dict[str, Any]) -> None:
    """Let the operations below `/v1` have OpenAI's errors in place of problem documents."""
    schema = ErrorDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= schema.pop("$defs") | {SCHEMA: schema | {"title": SCHEMA}}
    for path, operations in document["paths"].items():
        if is_openai(path):
            for operation in operations.values():
                operation["responses"] = _translated(operation["responses"])


def _translated(responses: dict[str, Any]) -> dict[str, Any]:
    told = {}
    for status, response in sorted(responses.items()):  # 422, which says more, in the place of 400
        if int(status) < 400:
            told[status] = response
        else:
            told[str(STATUSES.get(int(status), int(status)))] = _error(response)
    return told


def _error(response: dict[str, Any]) -> dict[str, Any]:
    [content] = response["content"].values()
    told = {"schema": {"$ref": f"#/components/schemas/{SCHEMA}"}, "example": error_of(content["example"])}
    return {"description": response["description"], "content": {"application/json": told}}
