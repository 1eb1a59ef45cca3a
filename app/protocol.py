"""HTTP/1.1 as uvicorn speaks it, with a problem document for what is no HTTP, and an end for who takes nothing.

Knows no route: it is so of every answer. Invariants: whatever bytes come in that are no request, the answer, if there
is one, is a problem document; what waits for a client is bounded in bytes and, when it takes none of them, in time.
"""

import asyncio
import logging
import socket
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.answer_headers import GUARDS
from app.errors import Problem

HEAD_BYTES = 64 * 1024
"""Of the first line and the headers: a prompt by GET is in them."""
PIECE_BYTES = 16 * 1024
UNSENT_BYTES = 8 * 1024
"""Of an answer that wait here for the system to take them, and what is written last: asyncio's own 64 KiB would be
most of the memory of a stream that nobody reads."""
STUCK_SECONDS = 30.0
"""A client that takes nothing of what waits for it for so long is given up."""
LOOK_SECONDS = 5.0
"""How often it is looked at."""
TCP_INFO_BYTES, BYTES_ACKED = 128, slice(120, 128)
"""`tcpi_bytes_acked` of Linux' `struct tcp_info`, linux/tcp.h: what the client's system has taken."""
DETAIL = (
    "This is no HTTP/1.1 request that can be taken: malformed, with characters in its address that must be "
    f"percent-encoded (`é` is `%C3%A9`), or with headers of over {HEAD_BYTES} bytes."
)


log = logging.getLogger(__name__)


class Protocol(H11Protocol):
    """Overrides the one answer that uvicorn writes by itself, which is plain text; sets the limits of this file."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """From here on, whoever writes when more than `UNSENT_BYTES` are unsent waits until a quarter of it is left."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._taken, self._stands_since = 0, 0.0
        self._next_look = self.loop.call_later(LOOK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Give the client up if it has taken nothing for too long of what waits, whether it is being written or, the
        connection being closed, is all that is left."""
        self._next_look = self.loop.call_later(LOOK_SECONDS, self._look)
        taken, now = self._taken_bytes(), self.loop.time()
        if taken != self._taken or not self.transport.get_write_buffer_size():
            self._taken, self._stands_since = taken, now
        elif now - self._stands_since >= STUCK_SECONDS:
            log.info("a client took nothing for %g s, its connection was ended", STUCK_SECONDS)
            self.transport.abort()

    def _taken_bytes(self) -> int:
        """By the client's system, as far as it has said so. Where that is not told: a number that changes as they are
        taken, as long as no more are written."""
        if not hasattr(socket, "TCP_INFO"):
            return -self.transport.get_write_buffer_size()
        info = self.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        return int.from_bytes(info[BYTES_ACKED], sys.byteorder)

    def data_received(self, data: bytes) -> None:
        """h11 limits only what is incomplete: headers that came all at once would pass, however many they are."""
        while len(data) > PIECE_BYTES and self.conn.their_state is h11.IDLE:
            super().data_received(data[:PIECE_BYTES])
            data = data[PIECE_BYTES:]
        if not self.transport.is_closing():
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer, unless an answer has begun already, and close the connection."""
        answer = Problem(400, "bad_request", DETAIL, headers=GUARDS | {"Connection": "close"}).response()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = h11.Response(status_code=400, headers=answer.raw_headers, reason=b"Bad Request")
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
