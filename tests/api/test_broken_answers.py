"""Texts that break off because the generation process dies: no client takes what it got for the whole."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.api.generating import DEADLINE_SECONDS, GeneratingService, generating_service, rest_of


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data"), max_streams=4) as made:
        yield made


def begun_and_broken(service: GeneratingService, version: str) -> tuple[socket.socket, bytes]:
    """A connection whose text has begun before the process was killed, and its first bytes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(DEADLINE_SECONDS)
    connection.connect(("127.0.0.1", service.port))
    target = "/generate?model=tiny&max_characters=1000000"
    connection.sendall(f"GET {target} HTTP/{version}\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n".encode())
    received = connection.recv(1000)
    pid = service.generation.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return connection, received


def test_where_the_end_of_the_connection_is_that_of_the_answer_it_is_reset(service: GeneratingService) -> None:
    connection, received = begun_and_broken(service, "1.0")
    assert received.startswith(b"HTTP/1.1 200"), received
    assert b"transfer-encoding" not in received.lower()
    with connection, pytest.raises(ConnectionResetError):
        rest_of(connection)
    assert service.generate(max_characters=5).status_code == 200, "by the next process"


def test_where_the_answer_has_an_end_of_its_own_that_alone_is_missing(service: GeneratingService) -> None:
    connection, received = begun_and_broken(service, "1.1")
    received += rest_of(connection)
    assert b"transfer-encoding: chunked" in received.lower()
    assert received.endswith(b"\r\n"), "a chunk that was begun is whole"
    assert not received.endswith(b"0\r\n\r\n")
    assert service.generate(max_characters=5).status_code == 200, "by the next process"
