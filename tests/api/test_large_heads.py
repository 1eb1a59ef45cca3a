"""Heads that are too large: refused behind another request as they are alone."""

import json
import re
import socket

import pytest

from app.protocol import HEAD_BYTES
from tests.api.generating import rest_of
from tests.api.service import DEADLINE_SECONDS, Service

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
FIRST = {
    "alone": b"",
    "behind one without a body": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "behind one with a body": b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_head_that_is_too_large_is_refused(service: Service, first: str, method: bytes) -> None:
    large = method + b" /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (HEAD_BYTES * 3 // 2) + b"\r\n\r\n"
    with socket.create_connection(service.address, DEADLINE_SECONDS) as connection:
        connection.sendall(FIRST[first] + large)
        answers = rest_of(connection)
    assert STATUS.findall(answers)[-1] == b"400", answers
    assert json.loads(answers.rpartition(b"\r\n\r\n")[2])["code"] == "bad_request"


@pytest.mark.parametrize("first", FIRST)
def test_a_head_of_the_largest_size_is_taken(service: Service, first: str) -> None:
    before, after = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: ", b"\r\n\r\n"
    with socket.create_connection(service.address, DEADLINE_SECONDS) as connection:
        connection.sendall(FIRST[first] + before + b"x" * (HEAD_BYTES - len(before) - len(after)) + after)
        assert STATUS.findall(rest_of(connection))[-1] == b"200"
