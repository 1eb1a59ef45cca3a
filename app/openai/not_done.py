"""Fields of OpenAI's requests that mean something which is not done here: refused by name, never passed over.

Invariant: only what asks for nothing passes, null or an empty list or object.
"""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

EMPTY: dict[str, tuple[Any, dict[str, Any]]] = {
    "object": ({}, {"type": "object", "maxProperties": 0}),
    "array": ([], {"type": "array", "maxItems": 0}),
}


@dataclass(frozen=True)
class NotDone:
    """To annotate such a field with: what it would be, and why or what instead."""

    reason: str
    kind: Literal["object", "array"] | None = None
    """What it is where it is not null."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        nothing: dict[str, Any] = {"type": "null"}
        return {"anyOf": [EMPTY[self.kind][1], nothing]} if self.kind else nothing

    def _check(self, value: Any) -> None:
        is_empty = self.kind is not None and value == EMPTY[self.kind][0]
        if value is not None and not is_empty:
            raise ValueError(f"is not done here: {self.reason}")
