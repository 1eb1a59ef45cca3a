"""Many clients in a process of their own: each asks for a stream and reads it as it comes, or leaves it unread.

One thread and one selector, which hears the questions too: what clients take of the processor the service lacks, and
the share is part of the answer. A byte of a text is a character of it, in the alphabet that is read here. Every
question is answered within a time that it names.
"""

import contextlib
import hashlib
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import child
from benchmarks.http_answer import Answer, generate_request

READ_BYTES = 64 * 1024
UNREAD_BUFFER_BYTES, UNREAD_SEGMENT_BYTES = 1, 300
"""Of a client that does not read: less than the kernel grants, so it grants its least. The text shall wait in the
service; with loopback's segments of 64 KiB the kernel alone keeps megabytes for each connection."""
TURN_SECONDS = 0.05
TOLD_CHARACTERS = 300
"""Of the end of a text that was kept."""


@dataclass
class Tally:
    """Of all clients together."""

    begun: int = 0
    """Have had a byte of their body, or have ended without."""
    ended: int = 0
    restarts: int = 0
    characters: int = 0


@dataclass(frozen=True)
class Manner:
    """How a client goes about it."""

    port: int
    reads: bool = True
    keeps: bool = False
    """Whether it remembers the text."""
    endless: bool = False
    """Whether it asks again when a text has ended."""


class Client:
    """One stream."""

    def __init__(self, selector: selectors.BaseSelector, tally: Tally, manner: Manner, request: bytes) -> None:
        self._selector = selector
        self._tally = tally
        self._manner = manner
        self._request = request
        self._begun = self._ended = False
        self._answered_seconds: float | None = None
        self._text = bytearray()
        self._connect()

    def _connect(self) -> None:
        self._answer = Answer()
        self._began = time.perf_counter()
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if not self._manner.reads:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BUFFER_BYTES)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, UNREAD_SEGMENT_BYTES)
        self._socket.connect_ex(("127.0.0.1", self._manner.port))
        self._selector.register(self._socket, selectors.EVENT_WRITE, self._ask)

    def _ask(self) -> None:
        try:
            sent = self._socket.send(self._request)
        except OSError:
            self._end()
            return
        assert sent == len(self._request), "a short request fits any buffer"
        self._selector.modify(self._socket, selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(OSError):  # reset by the other side: it has ended
            data = self._socket.recv(READ_BYTES)
        if not data:
            self._end()
            return
        body = self._answer.feed(data)
        if self._answered_seconds is None and self._answer.status:
            self._answered_seconds = time.perf_counter() - self._began
        if body:
            self._take(body)

    def _take(self, body: bytes) -> None:
        self._begin()
        self._tally.characters += len(body)
        if self._manner.keeps:
            self._text += body
        if not self._manner.reads:
            self._selector.unregister(self._socket)

    def _begin(self) -> None:
        self._tally.begun += not self._begun
        self._begun = True

    def _end(self) -> None:
        self.close()
        if self._manner.endless and self._answer.complete and self._answer.status == 200:
            self._tally.restarts += 1
            self._connect()
            return
        self._begin()
        self._ended = True
        self._tally.ended += 1

    def close(self) -> None:
        """Leave, whatever is under way."""
        with contextlib.suppress(KeyError, ValueError):  # not registered, or closed already
            self._selector.unregister(self._socket)
        self._socket.close()

    def told(self) -> dict[str, Any]:
        """How it went."""
        return {
            "status": self._answer.status,
            "ended": self._ended,
            "complete": self._answer.complete,
            "answered_seconds": self._answered_seconds,
            "retry_after": self._answer.headers.get("retry-after"),
            "sha256": hashlib.sha256(self._text).hexdigest(),
            "end": self._text.decode(errors="replace")[-TOLD_CHARACTERS:],
        }


class Crowd:
    """All clients of this process."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._hear)
        self._clients: list[Client] = []
        self._tally = Tally()
        self._asked = False

    def next_question(self) -> Any:
        """What is asked next, the clients at work meanwhile; None: nothing more will be."""
        self._asked = False
        while not self._asked:
            self._turn()
        return child.next_question()

    def open(self, requests: list[dict[str, Any]], accept: str, seconds: float, **manner: Any) -> Any:
        """A client for each request. The answer comes when every one has had the beginning of its own."""
        assert not self._clients, "the ones before are to be closed"
        self._tally = Tally()
        how = Manner(**manner)
        wanted = [generate_request(fields, accept) for fields in requests]
        self._clients = [Client(self._selector, self._tally, how, request) for request in wanted]
        self._read_until(lambda: self._tally.begun == len(self._clients), seconds)
        return {"begun": self._tally.begun, "ended": self._tally.ended}

    def count(self) -> Any:
        """What they have read so far, and what it has cost."""
        at, processor_seconds = time.perf_counter(), time.process_time()
        return {"characters": self._tally.characters, "at": at, "processor_seconds": processor_seconds}

    def finish(self, seconds: float) -> Any:
        """How every one of them ended; they are gone."""
        self._read_until(lambda: self._tally.ended == len(self._clients), seconds)
        told = [client.told() for client in self._clients]
        self.close()
        return told

    def close(self) -> Any:
        """All leave. How many had ended before, and how often texts were asked for again."""
        for client in self._clients:
            client.close()
        self._clients = []
        return {"ended": self._tally.ended, "restarts": self._tally.restarts}

    def _hear(self) -> None:
        self._asked = True

    def _read_until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.perf_counter() + seconds
        while not done() and time.perf_counter() < deadline:
            self._turn()

    def _turn(self) -> None:
        for key, _ in self._selector.select(TURN_SECONDS):
            key.data()


def allow_many_files() -> None:
    """As many open files as this user may have, for this process and its children: the usual 1,024 are no crowd."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    allow_many_files()
    crowd = Crowd()
    answer_to: dict[str, Callable[..., Any]] = {
        "open": crowd.open,
        "count": crowd.count,
        "finish": crowd.finish,
        "close": crowd.close,
    }
    while question := crowd.next_question():
        child.answer([answer_to[question.pop("do")](**question)])


if __name__ == "__main__":
    main()
