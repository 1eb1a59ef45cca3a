"""Whether a client takes what waits for it, and how one is cut off that does not.

Knows a transport, no HTTP. What counts as taking is what the client's system has acknowledged, and what waits for it
may lie in the kernel as well as here. Where that is not told (Linux tells it; macOS and gVisor do not), what leaves
our hands is all that is known.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress

TCP_INFO_BYTES, BYTES_ACKED = 128, slice(120, 128)
"""`tcpi_bytes_acked` of Linux' `struct tcp_info`, linux/tcp.h, since 4.1."""
TCP_NOTSENT_LOWAT = 25
"""Linux' number, linux/tcp.h, which Python's `socket` does not have before 3.12."""
UNSENT_IN_KERNEL_BYTES = 16 * 1024
"""Linux would take megabytes for a client that reads nothing: it takes no more while so many are unsent."""
_AT_ONCE = struct.pack("ii", 1, 0)
"""`struct linger`: closing drops what is unsent."""


class ReaderWatch:
    """Watches one connection, from `now` on, by whatever clock the caller has."""

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self._socket: socket.socket = transport.get_extra_info("socket")
        if sys.platform == "linux":
            self._socket.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_IN_KERNEL_BYTES)
        self._taken: int | None = None
        self._since = now
        self.is_told = False
        """Whether the client's system says what it takes: where not, a living reader may seem to stand still."""

    def stands_for(self, now: float) -> float:
        """The seconds for which the client has taken nothing of what waits for it, as far as looks can tell."""
        unsent, acknowledged = self._transport.get_write_buffer_size(), self._acknowledged()
        self.is_told = acknowledged > 0
        taken = acknowledged or -unsent  # the latter grows while nothing is written, as when a writer has to wait
        if taken != self._taken or not unsent + self._in_kernel():
            self._taken, self._since = taken, now
        return now - self._since

    def cut_off(self) -> None:
        """The connection ends by a reset: nobody takes what came for the whole, and the kernel keeps nothing of it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._transport.abort()

    def _acknowledged(self) -> int:
        """Bytes so far; 0 where it is not told."""
        if not hasattr(socket, "TCP_INFO"):
            return 0
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        return int.from_bytes(info[BYTES_ACKED], sys.byteorder)

    def _in_kernel(self) -> int:
        """Bytes that were given to the system and not acknowledged yet; 0 where it does not say."""
        with suppress(OSError):
            return int.from_bytes(fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return 0
