"""One bad input and the answer that it must get."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.bad_inputs.wire import FORM, Header, form, part, request

NAME = "bad-input"
"""The corpus, the job (finished) and the model that the table speaks of."""
JSON = "application/json"

Send = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Case:
    """`says` is in the detail. An accepted text has `back`: what must be read back."""

    what: str
    send: Send
    status: int
    code: str = ""
    says: str = ""
    back: bytes | None = None


def upload(
    what: str,
    text: bytes,
    status: int = 422,
    code: str = "not_text",
    says: str = "",
    *,
    name: str | None = None,
    file_name: str | bytes = "text.txt",
    back: bytes | None = None,
) -> Case:
    """A text, uploaded as a browser would."""
    parts = [part("file", text, file_name)] + ([part("name", name.encode())] if name is not None else [])
    return Case(what, lambda: request("POST", "/corpora", form(*parts), FORM), status, code, says, back)


def posted(
    what: str,
    target: str,
    body: Any,
    status: int = 422,
    code: str = "invalid_request",
    says: str = "",
    *,
    kind: str | bytes | None = JSON,
    headers: Iterable[Header] = (),
) -> Case:
    """A JSON body: bytes as they are, anything else encoded."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case(what, lambda: request("POST", target, data, kind, headers), status, code, says)


def called(
    what: str,
    method: str,
    target: str | bytes,
    status: int,
    code: str = "",
    says: str = "",
    *,
    headers: Iterable[Header] = (),
) -> Case:
    """A call without a body."""
    return Case(what, lambda: request(method, target, headers=headers), status, code, says)
