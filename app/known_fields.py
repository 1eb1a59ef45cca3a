"""Which fields a call takes, and what is said about one that it does not: a misspelt name is never passed over.

Knows the calls by the OpenAPI document alone, so that what is documented and what is allowed cannot differ. Invariant:
a message about an unknown field names those that are allowed in its place.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from fastapi import Request

LONGEST_NAME = 40
"""Of our own names the longest has 19 characters; looking for one that is like a name of megabytes would take long."""
ENTRY = re.compile(r'(metadata)\[([^"\\]{1,64})\]')
"""A parameter of a query that is one entry of another one, which is an object. FastAPI has no word for such."""


class KnownFields:
    """The fields of the call that a request makes, in the order of the document."""

    def __init__(self, request: Request) -> None:
        document = request.app.openapi()
        path = document["paths"].get(request.scope["route"].path_format, {})
        operation = path.get(request.method.lower(), {})
        content = operation.get("requestBody", {}).get("content", {})
        self._schemas = document["components"]["schemas"]
        self._body = content.get("application/json", {}).get("schema", {})
        form = self._properties(content.get("multipart/form-data", {}).get("schema", {}))
        self.query = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
        self.form = list(form)
        self.files = [name for name, schema in form.items() if "contentMediaType" in schema]

    def in_query(self, name: str) -> bool:
        """Whether the call has this parameter."""
        entry = ENTRY.fullmatch(name)
        return (entry[1] if entry else name) in self.query

    def unknown_in_query(self, name: str) -> str:
        """What is said about a parameter that the call does not have."""
        return _message(name, self.query, self.query)

    def unknown_in_form(self, name: str) -> str:
        """The same for a part of a form."""
        return _message(name, self.form, self.form)

    def unknown_in_body(self, location: Sequence[str | int]) -> str:
        """The same for a field of the JSON body, given with the names of the objects that it lies in."""
        schema = self._body
        for part in location[:-1]:
            schema = self._properties(schema).get(str(part), {})
        name = str(location[-1])
        return _message(name, list(self._properties(schema)), list(self._paths(self._body)))

    def _properties(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Of an object, or of the one object among several possible forms."""
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        for form in schema.get("anyOf", ()):
            if found := self._properties(form):
                return found
        properties: Mapping[str, Any] = schema.get("properties", {})
        return properties

    def _paths(self, schema: Mapping[str, Any], before: str = "") -> Iterator[str]:
        for name, inner in self._properties(schema).items():
            yield before + name
            yield from self._paths(inner, f"{before}{name}.")


def _message(name: str, allowed: Sequence[str], everywhere: Sequence[str]) -> str:
    if not allowed:
        return "unknown; this call takes no such fields"
    meant = _meant(name, everywhere)
    known = f"known here are {', '.join(allowed)}"
    return f"unknown, did you mean {meant}? ({known})" if meant else f"unknown; {known}"


def _meant(name: str, paths: Sequence[str]) -> str | None:
    """The path of the field that has this name in another place, or one much like it."""
    by_name = {path.rpartition(".")[2]: path for path in paths}
    close = get_close_matches(name, by_name, n=1, cutoff=0.75) if len(name) <= LONGEST_NAME else []
    return by_name[close[0]] if close else None
