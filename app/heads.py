"""Heads of requests of a bounded size, however they arrive.

Knows HTTP/1.1, no server. h11 itself limits only what is incomplete when it looks, so that a head that is there as a
whole would pass, for example behind another request. Invariant: no head of over `max_incomplete_event_size` bytes is
parsed.
"""

import re

import h11

_END = re.compile(rb"\n\r?\n")
"""Of a head, as h11 sees it."""


class BoundedHeads(h11.Connection):
    """The server's side of a connection; RemoteProtocolError for a head that is too large."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(h11.SERVER, most_bytes)
        self._most_bytes = most_bytes

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.IDLE:
            waiting, _ = self.trailing_data
            if len(waiting) > self._most_bytes and not _END.search(waiting, 0, self._most_bytes):
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        return super().next_event()
