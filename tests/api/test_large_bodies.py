"""Large bodies that are read into memory before anybody knows what they are: together they are bounded."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from app import large_bodies, main
from app.settings import Settings
from tests.api.service import DEADLINE_SECONDS, Service, running

MIB = 1 << 20
BUDGET = 8 * MIB
PIECE = 3 * MIB
CALLS = ("/score", "/generate", "/v1/completions")


@pytest.fixture
def service(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(
        main,
        "BoundLargeBodies",
        lambda app, largest: large_bodies.BoundLargeBodies(app, largest=PIECE, budget=BUDGET),
    )
    with running(Settings(data_dir=data_dir)) as made:
        yield made


def under_way(service: Service, path: str, *, chunked: bool) -> socket.socket:
    """A request of `PIECE` bytes that lacks its last one; all that was sent has been taken by the service."""
    connection = socket.create_connection((service.http.base_url.host, service.http.base_url.port), DEADLINE_SECONDS)
    body = b'{"text": "' + b"a" * (PIECE - 11)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {PIECE}"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    connection.sendall(head.encode() + (b"%x\r\n%s\r\n" % (len(body), body) if chunked else body))
    return connection


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", CALLS)
def test_more_than_the_budget_is_refused_while_others_are_under_way_and_taken_when_they_are_gone(
    service: Service, path: str, chunked: bool
) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(under_way(service, path, chunked=chunked)) for _ in range(2)]
        for connection in held:  # a third of the budget each, nothing is answered yet
            connection.settimeout(1)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        refused = stack.enter_context(under_way(service, path, chunked=chunked))
        refused.settimeout(DEADLINE_SECONDS)
        status, problem = answer_of(refused)
        assert status == 429, problem
        assert "large bodies" in json.dumps(problem)
        assert service.http.post(path, json={}).status_code in (400, 422), "a small one is read"

        for connection in held:
            connection.close()
    again = under_way(service, path, chunked=chunked)
    again.settimeout(DEADLINE_SECONDS)
    again.sendall(b"1\r\n}\r\n0\r\n\r\n" if chunked else b"}")
    assert answer_of(again)[0] in (400, 422), "read to its end, and refused for what it is"
    again.close()


def test_a_body_larger_than_the_budget_can_come_alone(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        main, "BoundLargeBodies", lambda app, largest: large_bodies.BoundLargeBodies(app, largest=PIECE, budget=MIB)
    )
    with running(Settings(data_dir=data_dir)) as service:
        connection = under_way(service, "/score", chunked=True)
        connection.sendall(b"1\r\n}\r\n0\r\n\r\n")
        assert answer_of(connection)[0] == 422, "read to its end, and refused for what it is"
        connection.close()
