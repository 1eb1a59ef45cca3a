"""A service that stops answers what is under way: with a problem document, soon, and never in plain text."""

import json
import socket
import threading
from http.client import HTTPResponse
from pathlib import Path

import pytest

from app.server import SHUTDOWN_SECONDS
from app.settings import Settings
from tests.api.service import DEADLINE_SECONDS, running
from tests.bad_inputs.wire import FORM, announced, endless, part

PART = part("file", b"to be, or not to be", "hamlet.txt")


def answer_of(connection: socket.socket) -> tuple[HTTPResponse, dict]:
    answer = HTTPResponse(connection)
    answer.begin()
    return answer, json.loads(answer.read())


def assert_told_to_come_back(answer: HTTPResponse, problem: dict) -> None:
    assert answer.status == problem["status"] == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Connection"] == "close"
    assert int(answer.headers["Retry-After"]) > 0
    assert problem["code"] == "shutting_down"


@pytest.mark.parametrize("announcing", [True, False], ids=["announced", "chunked"])
def test_an_upload_that_stands_still_is_told_when_the_service_stops(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, announcing: bool
) -> None:
    """Sooner than what takes long would be cut off: the test would not end in time."""
    monkeypatch.setattr("app.server.SHUTDOWN_SECONDS", 10 * DEADLINE_SECONDS)
    with running(Settings(data_dir=data_dir)) as service, socket.create_connection(service.address) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        if announcing:
            for piece in announced("/corpora", 1_000_000, PART, FORM):
                connection.sendall(piece)
        else:
            connection.sendall(next(iter(endless("/corpora", PART, b"x", FORM))))
        service.wait_until_taken_up(connection)
        service.server.should_exit = True
        assert_told_to_come_back(*answer_of(connection))


def test_a_body_of_json_that_stands_still_is_told_too(data_dir: Path) -> None:
    with running(Settings(data_dir=data_dir)) as service, socket.create_connection(service.address) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        for piece in announced("/jobs", 1_000, b'{"corpus":', "application/json"):
            connection.sendall(piece)
        service.wait_until_taken_up(connection)
        service.server.should_exit = True
        assert_told_to_come_back(*answer_of(connection))


def test_an_answer_that_takes_too_long_is_given_up_with_a_problem(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def take_long(*_: object) -> None:
        begun.set()
        go_on.wait(DEADLINE_SECONDS)

    assert SHUTDOWN_SECONDS < 10, "what `serve` gives its children"
    monkeypatch.setattr("app.server.SHUTDOWN_SECONDS", 0.2)
    monkeypatch.setattr("app.store.corpora.list_corpora", take_long)
    with running(Settings(data_dir=data_dir)) as service, socket.create_connection(service.address) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        connection.sendall(b"GET /corpora HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert begun.wait(DEADLINE_SECONDS)
        service.server.should_exit = True
        answered = answer_of(connection)
        go_on.set()
    assert_told_to_come_back(*answered)
