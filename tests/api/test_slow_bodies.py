"""Clients that hardly send anything: a byte now and then keeps neither a body nor a connection open for ever."""

import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from app import protocol, slow_bodies
from app.settings import Settings
from tests.api.service import DEADLINE_SECONDS, Service, running
from tests.bad_inputs.wire import FORM, announced, endless, part

PART = part("file", b"", "hamlet.txt")[:-2]
BEGINNINGS = {
    "a form, announced": b"".join(announced("/corpora", 1_000_000, PART, FORM)),
    "a form, in chunks": next(iter(endless("/corpora", PART, b"x", FORM))),
    "a model": b"".join(announced("/models", 1_000_000, PART, FORM)),
    "JSON": b"".join(announced("/jobs", 1_000, b'{"corpus": "', "application/json")),
    "a prompt": b"".join(announced("/generate", 1_000, b'{"model": "', "application/json")),
}


@pytest.fixture
def service(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(slow_bodies, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(slow_bodies, "GRACE_SECONDS", 1.0)
    with running(Settings(data_dir=data_dir)) as made:
        yield made


def answer_after(connection: socket.socket, piece: bytes, pause: float) -> tuple[HTTPResponse, dict[str, Any]]:
    """The answer that comes while a piece is sent now and then."""
    connection.settimeout(pause)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            if connection.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            connection.sendall(piece)
    else:
        raise AssertionError("no answer came while it was sent")
    connection.settimeout(DEADLINE_SECONDS)
    answer = HTTPResponse(connection)
    answer.begin()
    return answer, json.loads(answer.read())


def assert_too_slow(answer: HTTPResponse, problem: dict[str, Any], code: str = "body_too_slow") -> None:
    assert answer.status == problem["status"] == 408, problem
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Connection"] == "close"
    assert problem["code"] == code


@pytest.mark.parametrize("what", BEGINNINGS)
def test_a_body_that_comes_by_a_byte_now_and_then_is_given_up_though_it_never_stands_still(
    service: Service, what: str
) -> None:
    byte = b"1\r\nx\r\n" if "chunks" in what else b"x"
    with socket.create_connection(service.address) as connection:
        connection.sendall(BEGINNINGS[what])
        assert_too_slow(*answer_after(connection, byte, 0.05))
    assert service.http.get("/corpora").json()["data"] == []


@pytest.mark.parametrize("what", BEGINNINGS)
def test_a_body_that_stands_still_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(slow_bodies, "GRACE_SECONDS", 10 * DEADLINE_SECONDS)
    with socket.create_connection(service.address) as connection:
        connection.sendall(BEGINNINGS[what])
        assert_too_slow(*answer_after(connection, b"", 0.5))


def test_a_body_that_keeps_its_pace_may_take_longer_than_the_grace(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_bodies, "IDLE_SECONDS", DEADLINE_SECONDS)
    piece = b"to be, or not to be\n" * 1000
    body = [PART, *[piece] * 25, b"\r\n--end-of-a-part--\r\n"]
    with socket.create_connection(service.address) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        connection.sendall(b"".join(announced("/corpora", sum(map(len, body)), b"", FORM)))
        for each in body:
            connection.sendall(each)
            time.sleep(0.06)
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 201, answer.read()


def test_a_service_that_stood_still_itself_takes_what_came_meanwhile(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_bodies, "IDLE_SECONDS", 2.0)
    monkeypatch.setattr(slow_bodies, "GRACE_SECONDS", 3.0)
    rest = b"to be, or not to be\r\n--end-of-a-part--\r\n"
    with socket.create_connection(service.address) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        connection.sendall(b"".join(announced("/corpora", len(PART) + len(rest), PART, FORM)))
        time.sleep(0.2)
        service.server.servers[0].get_loop().call_soon_threadsafe(time.sleep, 4.0)
        time.sleep(0.2)
        connection.sendall(rest)
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 201, answer.read()


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
def test_a_connection_that_asks_for_nothing_is_ended_though_a_byte_comes_now_and_then(
    service: Service, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "LOOK_SECONDS", 0.05)
    with socket.create_connection(service.address) as connection:
        connection.sendall(begun)
        if begun.endswith(b"\r\n\r\n"):  # the first request is answered, the second does not come
            answer = HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            answer.read()
        if begun:
            assert_too_slow(*answer_after(connection, b"X", 0.05), "head_too_slow")
        connection.settimeout(DEADLINE_SECONDS)
        assert connection.recv(1) == b""


def test_who_waits_for_an_answer_is_not_taken_for_one_who_asks_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> list[object]:
        time.sleep(1.0)
        return []

    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr("app.routes.jobs.jobs.list_jobs", slow)
    with socket.create_connection(service.address) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        connection.sendall(b"GET /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 500"
