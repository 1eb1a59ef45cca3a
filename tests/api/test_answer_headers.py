"""Every answer says once that it may not be framed, and that its type is not to be guessed."""

from pathlib import Path

import httpx
import pytest

from app.answer_headers import GUARDS
from app.settings import Settings
from tests.api.service import Service, running
from tests.bad_inputs.wire import exchange, filled

OTHER = "https://page.example"


def guards_of(answer: httpx.Response) -> dict[str, list[str]]:
    return {name: answer.headers.get_list(name) for name in GUARDS}


EACH_ONCE = {name: [value] for name, value in GUARDS.items()}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/docs", 200),
        ("GET", "/", 200),
        ("GET", "/corpora", 200),
        ("HEAD", "/healthz", 200),
        ("HEAD", "/generate", 405),
        ("GET", "/nowhere", 404),
        ("DELETE", "/corpora", 405),
        ("POST", "/jobs", 422),
    ],
)
def test_an_answer_of_any_status_is_guarded(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)

    assert answer.status_code == status
    assert guards_of(answer) == EACH_ONCE


def test_a_refused_page_is_guarded_too(http: httpx.Client) -> None:
    answer = http.get("/docs", headers={"Host": "evil.example"})

    assert answer.status_code == 403
    assert guards_of(answer) == EACH_ONCE


def test_an_unforeseen_error_is_guarded_and_a_page_that_may_call_can_read_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("app.store.corpora.list_corpora", explode)
    with running(Settings(data_dir=data_dir, cors_origins=(OTHER,))) as service:
        answer = service.http.get("/corpora", headers={"Origin": OTHER})

    assert answer.status_code == 500
    assert guards_of(answer) == EACH_ONCE
    assert answer.headers["access-control-allow-origin"] == OTHER


def test_a_body_that_is_too_large_and_what_is_no_http_are_answered_guarded(service: Service) -> None:
    url = str(service.http.base_url)
    large = exchange(url, filled("/jobs", b"{", 2_000_000, b"}", "application/json"))
    no_http = exchange(url, [b"to be, or not to be\r\n\r\n"])

    for answer, status in ((large, 413), (no_http, 400)):
        assert answer.status == status
        assert {name: answer.headers.get(name.lower()) for name in GUARDS} == GUARDS
