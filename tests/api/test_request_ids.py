"""Every answer carries the id of its request, and so do the lines logged meanwhile."""

import json
import logging
from pathlib import Path

import httpx
import pytest

from app.logs import JsonLines, TextLines
from app.settings import Settings
from tests.api.service import running


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/jobs/job_a"])
def test_a_request_without_an_id_gets_one_of_its_own(http: httpx.Client, path: str) -> None:
    ids = [http.get(path).headers.get_list("x-request-id") for _ in range(2)]

    assert [len(found) for found in ids] == [1, 1]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(("sent", "kept"), [("a.B_9-", True), ("x" * 64, True), ("x" * 65, False), ("a b", False)])
def test_a_clients_own_id_is_kept_if_it_is_plain(http: httpx.Client, sent: str, kept: bool) -> None:
    assert (http.get("/healthz", headers={"X-Request-ID": sent}).headers["x-request-id"] == sent) is kept


def test_lines_logged_for_a_request_carry_its_id(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend([JsonLines("api").format(record), TextLines("api").format(record)])

    def say(*_: object) -> None:
        logging.getLogger("probe").warning("said in a thread")
        raise RuntimeError

    monkeypatch.setattr("app.store.corpora.list_corpora", say)
    handler = Keep()
    logging.getLogger("probe").addHandler(handler)
    try:
        with running(Settings(data_dir=data_dir)) as service:
            answer = service.http.get("/corpora", headers={"X-Request-ID": "mine"})
    finally:
        logging.getLogger("probe").removeHandler(handler)

    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "mine"
    assert json.loads(lines[0])["request_id"] == "mine"
    assert "request_id=mine" in lines[1]
