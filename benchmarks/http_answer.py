"""One HTTP/1.1 answer, taken apart as its bytes come, and the request that asks for it: as much as clients here need.

Knows no sockets: bytes in, the body's bytes out. A client that measures shares the processor with the service that it
measures, so it must not be a heavy one. Invariant: however the bytes are cut, the body is the same.
"""

import json
from collections.abc import Mapping
from typing import Any

LINE_END = b"\r\n"


def generate_request(fields: Mapping[str, Any], accept: str = "text/plain") -> bytes:
    """Of `POST /generate`, on a connection that is used once."""
    body = json.dumps(fields).encode()
    head = (
        "POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Accept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Answer:
    """What has come of one answer. It ends by its length or with its last chunk."""

    def __init__(self) -> None:
        self.status = 0
        """0 until the head is there."""
        self.headers: dict[str, str] = {}
        """By their names in lower case."""
        self.complete = False
        self._held = b""
        self._left = 0  # of a body whose length is told

    def feed(self, data: bytes) -> bytes:
        """What these bytes complete of the body; often nothing."""
        self._held += data
        if not self.status and not self._read_head():
            return b""
        return self._read_length() if "content-length" in self.headers else self._read_chunks()

    def _read_head(self) -> bool:
        head, found, rest = self._held.partition(LINE_END * 2)
        if not found:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._left = int(self.headers.get("content-length", 0))
        self._held = rest
        return True

    def _read_length(self) -> bytes:
        body, self._held = self._held[: self._left], b""
        self._left -= len(body)
        self.complete = not self._left
        return body

    def _read_chunks(self) -> bytes:
        """A chunk is told as a whole: ours are short."""
        held, begin, pieces = self._held, 0, []
        while not self.complete and (line := held.find(LINE_END, begin)) >= 0:
            length = int(held[begin:line], 16)
            data = line + len(LINE_END)
            end = data + length + len(LINE_END)
            if len(held) < end:
                break
            pieces.append(held[data : data + length])
            self.complete = not length
            begin = end
        self._held = held[begin:]
        return b"".join(pieces)
