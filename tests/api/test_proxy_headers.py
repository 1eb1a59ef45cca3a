"""What a client says of where it comes from is not believed, and does not reach the log."""

import logging

import pytest

from tests.api.service import Service

ESCAPE = "\x1b[2J\x1b]0;owned\x07"


def test_a_made_up_address_does_not_reach_the_log(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.access")
    service.http.get("/corpora", headers={"X-Forwarded-For": f"{ESCAPE}, 203.0.113.9"})
    service.http.get("/corpora/%1b[2J", headers={"X-Forwarded-For": ESCAPE})

    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("127.0.0.1:")
        assert line.isprintable()


def test_a_made_up_scheme_changes_no_address_of_ours(service: Service) -> None:
    for path in ("/", "/docs"):
        plain, made_up = (service.http.get(path, headers=headers) for headers in ({}, {"X-Forwarded-Proto": "https"}))
        assert made_up.text == plain.text
