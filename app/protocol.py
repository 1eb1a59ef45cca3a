"""HTTP/1.1 as uvicorn speaks it, with a problem document for what is no HTTP, and an end for who takes or asks nothing.

Knows no route: it is so of every answer. Invariants: whatever bytes come in that are no request, the answer, if there
is one, is a problem document; what waits for a client is bounded in bytes, but for the last piece of an answer, and,
when it takes none of them, in time; so is the time that a connection has to ask for something, and how many there are.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.answer_headers import GUARDS
from app.broken_answers import is_broken_off, offer
from app.descriptors import most_connections
from app.errors import RETRY_SECONDS, Problem
from app.heads import BoundedHeads
from app.reader_watch import ReaderWatch
from app.statuses import STATUSES

log = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024
"""Of the first line and the headers: a prompt by GET is in them."""
UNSENT_BYTES = 4 * 1024
"""Of an answer that wait here for the system to take them, and what is written last: asyncio's own 64 KiB would be
most of the memory of a stream that nobody reads."""
PATIENCE = "charsmith.patience_seconds"
"""In the scope of a request: for how long its client may take nothing of the answer."""
PATIENCE_SECONDS = 600.0
"""Where the scope says nothing, as for downloads, which a person may pause; and at least, where the client's system
does not say what it takes."""
HEAD_SECONDS = 30.0
"""So long a connection may be there without a request under way: one byte of a head now and then would keep it open."""
LOOK_SECONDS = 5.0
"""How often a client is looked at."""
TOO_SLOW = f"The head of the request did not come within {HEAD_SECONDS:g} seconds."
TOO_MANY = "There are too many connections; those that ask for nothing end by themselves. Come again later."
DETAIL = (
    "This is no HTTP/1.1 request that can be taken: malformed, with characters in its address that must be "
    f"percent-encoded (`é` is `%C3%A9`), or with headers of over {HEAD_BYTES} bytes."
)


class Protocol(H11Protocol):
    """Overrides the one answer that uvicorn writes by itself, which is plain text; sets the limits of this file."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = BoundedHeads(HEAD_BYTES)
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; its connection ends after what was written if the answer was broken off on purpose."""
        offer(scope)
        await self.config.loaded_app(scope, receive, send)
        if is_broken_off(scope):
            self.cycle.disconnected = True  # so it is to uvicorn, which would complain of an answer without an end
            if scope["http_version"] == "1.0":  # where the end of the connection is that of the answer
                self._reader.cut_off()
            else:
                self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """From here on, whoever writes when more than `UNSENT_BYTES` are unsent waits until a quarter of it is left."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._reader = ReaderWatch(transport, self.loop.time())
        self._last_cycle, self._waits_since = self.cycle, self.loop.time()
        self._next_look = self.loop.call_later(LOOK_SECONDS, self._look)
        if len(self.connections) > most_connections():
            self._refuse_connection()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        self.app = self.config.loaded_app  # no circle, which only the collector would find
        super().connection_lost(exc)

    def _look(self) -> None:
        """Give the client up if it has taken nothing for too long of what waits, whether it is being written or, the
        connection being closed, is all that is left."""
        self._next_look = self.loop.call_later(LOOK_SECONDS, self._look)
        now = self.loop.time()
        self._end_if_it_asks_nothing(now)
        stands, patience = self._reader.stands_for(now), self._patience()
        if stands >= patience:
            log.info("a client took nothing for %.0f s, its connection was ended", stands)
            self._reader.cut_off()

    def _end_if_it_asks_nothing(self, now: float) -> None:
        """Give the client up whose next request does not come, or whose last one does not end."""
        if self.cycle is not self._last_cycle or not (self.cycle is None or self.cycle.response_complete):
            self._last_cycle, self._waits_since = self.cycle, now
        elif now - self._waits_since >= HEAD_SECONDS and not self.transport.is_closing():
            log.info("a client asked for nothing within %g s, its connection was ended", HEAD_SECONDS)
            if self.conn.trailing_data[0]:
                self._refuse(Problem(408, "head_too_slow", TOO_SLOW, headers=GUARDS | {"Connection": "close"}))
            self.transport.close()

    def _patience(self) -> float:
        scope: Mapping[str, Any] = {} if self.cycle is None else self.cycle.scope
        told: float = scope.get(PATIENCE, PATIENCE_SECONDS)
        return told if self._reader.is_told else max(told, PATIENCE_SECONDS)

    def _refuse_connection(self) -> None:
        log.info("a client was refused, there are %d connections", len(self.connections) - 1)
        with suppress(OSError):  # closed with something unread, it would end by a reset, which may overtake the answer
            os.read(self.transport.get_extra_info("socket").fileno(), HEAD_BYTES)
        told = {"Retry-After": RETRY_SECONDS, "Connection": "close"}
        self._refuse(Problem(503, "too_many_connections", TOO_MANY, headers=GUARDS | told))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer, unless an answer has begun already, and close the connection."""
        self._refuse(Problem(400, "bad_request", DETAIL, headers=GUARDS | {"Connection": "close"}))
        self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        answer = problem.response()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            reason = STATUSES[problem.status].title.encode()
            head = h11.Response(status_code=problem.status, headers=answer.raw_headers, reason=reason)
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
