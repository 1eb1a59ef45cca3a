"""One life of the generation process, as the service sees it: a child and the messages to and from it.

Knows neither streams nor why messages are said. No torch here. Invariant: nothing in here blocks the event loop,
whatever the process does or fails to do.
"""

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from app.generation.protocol import Decoder, Message, encode
from app.processes import Child, start_module

RECEIVE_BYTES = 256 * 1024
MAX_UNSENT_BYTES = 64 * 1024 * 1024
"""A process that takes no commands is given up before more than this has piled up."""
GRACE_SECONDS = 2.0


class Link:
    """A running process. Ends with `end`, which must be called."""

    def __init__(self, child: Child, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._child = child
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()

    @classmethod
    async def start(cls, compiled_dir: Path, log: Mapping[str, str]) -> "Link":
        """The process, started but not yet ready: it waits for `begin`. Compiled functions are kept in the folder;
        `log` says how it logs, in variables."""
        environment = {**os.environ, **log, "NUMBA_CACHE_DIR": str(compiled_dir)}
        start = partial(start_module, "app.generation.process", env=environment)
        starting = asyncio.create_task(asyncio.to_thread(start))
        try:
            child = await asyncio.shield(starting)
        except asyncio.CancelledError:  # the thread goes on all the same: its child must not stay behind
            await asyncio.to_thread((await starting).end)
            raise
        try:
            reader, writer = await asyncio.open_connection(sock=child.socket)
        except BaseException:
            await asyncio.to_thread(child.end)
            raise
        return cls(child, reader, writer)

    @property
    def pid(self) -> int:
        return self._child.process.pid

    @property
    def clogged(self) -> bool:
        """Whether too much waits to be taken by the process."""
        return self._writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES

    def say(self, message: Message) -> None:
        """Send a message without waiting. To a process that is gone: does nothing."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def hear(self) -> list[Message]:
        """The next messages, perhaps none yet. Raises ConnectionError when the process is gone."""
        data = await self._reader.read(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("it closed the connection")
        return self._decoder.feed(data)

    async def end(self) -> int:
        """The exit status of the process, which is ended if it has not by itself."""
        self._writer.transport.abort()  # what a hung process did not take is not waited for
        return await asyncio.to_thread(self._child.end, GRACE_SECONDS)
