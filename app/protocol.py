"""HTTP/1.1 as uvicorn speaks it, with a problem document for what is no HTTP.

Knows no route: such a request never reaches the app. Invariant: whatever bytes come in, the answer, if there is one, is
a problem document.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.answer_headers import GUARDS
from app.errors import Problem

HEAD_BYTES = 64 * 1024
"""Of the first line and the headers: a prompt by GET is in them."""
PIECE_BYTES = 16 * 1024
UNSENT_BYTES = 16 * 1024
"""Of an answer that wait here for the system to take them, and what is written last: asyncio's own 64 KiB would be
most of the memory of a stream that nobody reads."""
DETAIL = (
    "This is no HTTP/1.1 request that can be taken: malformed, with characters in its address that must be "
    f"percent-encoded (`é` is `%C3%A9`), or with headers of over {HEAD_BYTES} bytes."
)


class Protocol(H11Protocol):
    """Overrides the one answer that uvicorn writes by itself, which is plain text; limits headers and unsent bytes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """From here on, whoever writes when more than `UNSENT_BYTES` are unsent waits until a quarter of it is left."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNSENT_BYTES)

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
