"""HTTP/1.1 by hand: requests that no client library would send, over a plain socket.

Knows no route. Invariant: what is sent is exactly the bytes given, and sending stops as soon as an answer comes.
"""

import http.client
import json
import select
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

DEADLINE_SECONDS = 60.0
PIECE_BYTES = 65_536
BOUNDARY = "end-of-a-part"
FORM = f"multipart/form-data; boundary={BOUNDARY}"

Header = tuple[str, str | bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how many bytes the service had been sent when it did."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent_bytes: int

    @property
    def kind(self) -> str:
        return self.headers.get("content-type", "").split(";")[0]

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; {} if it is none."""
        found = json.loads(self.body) if self.kind.endswith("json") else {}
        return found if isinstance(found, dict) else {}


def exchange(url: str, request: Iterable[bytes]) -> Answer:
    """Send a request in pieces on a connection of its own; the answer to it."""
    address = urlsplit(url)
    sent = 0
    with socket.create_connection((address.hostname or "", address.port or 80), DEADLINE_SECONDS) as connection:
        try:
            for piece in request:
                if select.select([connection], [], [], 0)[0]:
                    break
                connection.sendall(piece)
                sent += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered and closed: the answer is still to be read
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read(), sent)


def head(method: str, target: str | bytes, headers: Iterable[Header]) -> bytes:
    """The lines before the body."""
    lines = [b"%s %s HTTP/1.1" % (method.encode(), _bytes(target))]
    lines += [b"%s: %s" % (name.encode(), _bytes(value)) for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def request(
    method: str, target: str | bytes, body: bytes = b"", kind: str | bytes | None = None, headers: Iterable[Header] = ()
) -> Iterator[bytes]:
    """A whole request, its length announced."""
    given: list[Header] = [("Host", "localhost"), ("Connection", "close"), *headers]
    if kind is not None:
        given.append(("Content-Type", kind))
    if body or method == "POST":
        given.append(("Content-Length", str(len(body))))
    yield head(method, target, given)
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def filled(target: str, beginning: bytes, length: int, end: bytes, kind: str) -> Iterator[bytes]:
    """A request whose body is `length` times x between two pieces, however large."""
    yield from announced(target, len(beginning) + length + len(end), beginning, kind)
    for start in range(0, length, PIECE_BYTES):
        yield b"x" * min(PIECE_BYTES, length - start)
    yield end


def endless(target: str, beginning: bytes, piece: bytes, kind: str) -> Iterator[bytes]:
    """A chunked request whose body goes on for 2 GB unless somebody stops it."""
    yield head(
        "POST", target, [("Host", "localhost"), ("Content-Type", kind), ("Transfer-Encoding", "chunked")]
    ) + _chunk(beginning)
    for _ in range(2_000_000_000 // len(piece)):
        yield _chunk(piece)


def announced(target: str, length: int, beginning: bytes, kind: str) -> Iterator[bytes]:
    """A request that announces so many bytes and waits for an answer after the first few."""
    headers: list[Header] = [("Host", "localhost"), ("Content-Type", kind), ("Content-Length", str(length))]
    yield head("POST", target, headers) + beginning


def part(name: str, content: bytes, file_name: str | bytes | None = None, headers: bytes = b"") -> bytes:
    """One part of a form, with the line that begins it."""
    file = b"" if file_name is None else b'; filename="%s"' % _bytes(file_name)
    opening = b'--%s\r\nContent-Disposition: form-data; name="%s"' % (BOUNDARY.encode(), name.encode())
    return opening + file + b"\r\n" + headers + b"\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole form."""
    return b"".join(parts) + b"--%s--\r\n" % BOUNDARY.encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
