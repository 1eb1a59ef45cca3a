"""Text on its way from the generation process to the service, coalesced.

Invariant: for each row the text goes out in the order in which it was written, and before anything said later.
"""

import base64
import socket
import time
from typing import Any

from app.generation.protocol import Message, encode
from models.rows import RowOutput

FLUSH_SECONDS = 0.01
"""Text of so long goes in one message, except a row's first. Below what an eye sees; a message for every character of
one fast stream would keep the service's event loop busy."""


class Outbox:
    """One message for all rows, every few milliseconds."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rows: dict[int, list[Any]] = {}
        self._urgent = False
        self._flushed_at = 0.0

    def say(self, message: Message) -> None:
        """Send at once, after the text that was written before."""
        self.flush()
        self._connection.sendall(encode(message))

    def write(self, output: RowOutput, *, first: bool) -> None:
        entry = self._rows.setdefault(output.row_id, [output.row_id, "", None])
        entry[1] += output.text
        if output.scores:
            entry[3:] = entry[3:] or [[]]
            entry[3] += output.scores
        if output.finished:
            entry[2] = _ending(output)
        self._urgent = self._urgent or first

    def flush_if_due(self, *, idle: bool) -> None:
        if self._rows and (idle or self._urgent or time.monotonic() - self._flushed_at >= FLUSH_SECONDS):
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._connection.sendall(encode({"is": "text", "rows": list(self._rows.values())}))
            self._rows.clear()
        self._urgent = False
        self._flushed_at = time.monotonic()

    def forget(self, row_id: int) -> None:
        self._rows.pop(row_id, None)


def _ending(output: RowOutput) -> Message:
    state = None if output.state is None else base64.b64encode(output.state.to_bytes()).decode()
    return {"finish_reason": output.finished, "held_back": output.held_back, "state": state}
