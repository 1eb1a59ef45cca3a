"""A client's system tells what it takes: real connections, looked at at times that the test makes up."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from app import reader_watch
from app.reader_watch import ReaderWatch

BYTES = 8_000_000
"""More than the kernel holds for a client that reads nothing."""


class Connection:
    """Both ends: the transport that is written to, and the client's socket, which reads only when it is told to."""

    def __init__(self, transport: asyncio.Transport, client: socket.socket) -> None:
        self.transport = transport
        self.client = client

    async def settle(self) -> None:
        """Until nothing moves: the kernel has taken what it can."""
        before = -1
        while before != (before := self.transport.get_write_buffer_size()):
            await asyncio.sleep(0.05)

    async def read(self, most: int) -> int:
        read = 0
        while read < most:
            read += len(await asyncio.get_running_loop().sock_recv(self.client, 65_536))
            await asyncio.sleep(0)
        return read


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[Connection]:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            made.set_result(transport)

    server = await loop.create_server(Server, "127.0.0.1", 0)
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await loop.sock_connect(client, server.sockets[0].getsockname())
        yield Connection(await made, client)
    finally:
        client.close()
        (await made).abort()
        server.close()
        await server.wait_closed()


async def filled(made: Connection) -> None:
    made.transport.write(b"x" * BYTES)
    await made.settle()
    assert made.transport.get_write_buffer_size() > 0


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
def test_who_takes_nothing_stands_and_moves_by_taking(closing: bool) -> None:
    async def play() -> None:
        async with connection() as made:
            watch = ReaderWatch(made.transport, now=1000.0)
            assert watch.stands_for(1005.0) == 0, "nothing waits"
            await filled(made)
            if closing:  # what is left is all that is left
                made.transport.close()
            assert watch.stands_for(1010.0) == 0, "the kernel took some"
            assert watch.stands_for(1030.0) == 20
            assert watch.is_told
            await made.read(1_000_000)
            await made.settle()
            assert watch.stands_for(1035.0) == 0
            assert watch.stands_for(1036.0) == 1

    asyncio.run(play())


def test_a_first_look_counts_from_the_beginning_of_the_connection() -> None:
    async def play() -> None:
        async with connection() as made:
            watch = ReaderWatch(made.transport, now=1000.0)
            await filled(made)
            assert watch.stands_for(1005.0) <= 5

    asyncio.run(play())


def test_an_answer_that_was_taken_whole_leaves_a_connection_that_may_wait() -> None:
    async def play() -> None:
        async with connection() as made:
            watch = ReaderWatch(made.transport, now=0.0)
            made.transport.write(b"x" * 100)
            await made.read(100)
            assert [watch.stands_for(now) for now in (5.0, 500.0, 5000.0)] == [0, 0, 0]

    asyncio.run(play())


def test_what_the_kernel_holds_for_a_client_waits_too() -> None:
    async def play() -> None:
        async with connection() as made:
            made.transport.write(b"x" * 12_000)
            await made.settle()
            assert made.transport.get_write_buffer_size() == 0, "this test is about the kernel's"
            watch = ReaderWatch(made.transport, now=0.0)
            watch.stands_for(1.0)
            assert watch.stands_for(31.0) == 30

    asyncio.run(play())


def test_the_kernel_takes_little_for_who_reads_nothing() -> None:
    async def play() -> None:
        async with connection() as made:
            watch = ReaderWatch(made.transport, now=0.0)
            await filled(made)
            assert BYTES - made.transport.get_write_buffer_size() < 300_000
            assert watch._in_kernel() < 200_000

    asyncio.run(play())


@pytest.mark.parametrize("information", ["none", "zero"])
def test_where_a_system_tells_nothing_our_own_buffer_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, information: str
) -> None:
    if information == "none":
        monkeypatch.delattr(reader_watch.socket, "TCP_INFO")
    else:
        monkeypatch.setattr(reader_watch, "BYTES_ACKED", slice(0, 0))

    async def play() -> None:
        async with connection() as made:
            watch = ReaderWatch(made.transport, now=0.0)
            await filled(made)
            assert watch.stands_for(5.0) == 0
            assert watch.stands_for(15.0) == 10
            assert not watch.is_told
            await made.read(BYTES // 2)
            await made.settle()
            assert watch.stands_for(20.0) == 0

    asyncio.run(play())


def test_who_is_cut_off_sees_a_reset_and_no_end() -> None:
    async def play() -> None:
        async with connection() as made:
            await filled(made)
            ReaderWatch(made.transport, now=0.0).cut_off()
            with pytest.raises(ConnectionResetError):
                await made.read(BYTES)

    asyncio.run(play())
