"""Where a text stands, as clients keep it: opaque, signed, bound to its checkpoint.

Knows no store and no network: a row's state is bytes here. Invariant: what is read was signed by a service of this
installation, so that nobody makes the generation process take up numbers of his own.
"""

import base64
import binascii
import hmac
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

SIGNATURE_BYTES = 32
VERSION = 1


class InvalidState(ValueError):
    """What was given as a state is none, or none of this installation."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What it takes to go on with a text."""

    checkpoint_id: str
    settings: dict[str, Any]
    """Of the request, `seed` included."""
    row: str
    """The row's state, in base64."""

    def signed(self, key: bytes) -> str:
        """As clients get it. Layout: HMAC-SHA256 of the rest, length of a JSON object (4 bytes, most significant
        first), the object, the row's state; all in URL-safe base64."""
        told = asdict(self) | {"version": VERSION}
        row = base64.b64decode(told.pop("row"))
        header = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
        body = len(header).to_bytes(4, "big") + header + row
        return base64.urlsafe_b64encode(hmac.digest(key, body, "sha256") + body).decode().rstrip("=")

    @classmethod
    def read(cls, state: str, key: bytes) -> Self:
        """What `signed` made. Raises InvalidState."""
        try:
            data = base64.urlsafe_b64decode(state + "=" * (-len(state) % 4))
        except (binascii.Error, ValueError):  # of characters outside ASCII
            raise InvalidState("is no state: it was cut or changed on the way") from None
        signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, hmac.digest(key, body, "sha256")):
            raise InvalidState("is no state of this installation, or was cut or changed on the way")
        end = 4 + int.from_bytes(body[:4], "big")
        told = json.loads(body[4:end])
        if told.pop("version") != VERSION:
            raise InvalidState("was made by another version of Charsmith")
        return cls(row=base64.b64encode(body[end:]).decode(), **told)
