"""Every error is a problem document, and no body, however odd, makes a 5xx."""

import json

import httpx
import pytest

from app.errors import MAX_TEXT
from app.store.errors import DatabaseBusy, DiskFull
from tests.api.service import Service, assert_problem

JSON = {"Content-Type": "application/json"}
DEEP = 100_000


def test_an_unknown_path_and_a_wrong_method_are_problems(http: httpx.Client) -> None:
    assert assert_problem(http.get("/nowhere"), 404)["code"] == "not_found"
    answer = http.put("/corpora")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"corpus": NaN}',
        b'{"corpus": "hamlet", "training": {"learning_rate": NaN}}',
        b'{"corpus": "hamlet", "training": {"learning_rate": Infinity}}',
        b'{"corpus": "hamlet", "training": {"minutes": -Infinity}}',
        b'{"corpus": "hamlet", "training": {"minutes": 1e999}}',
        b'{"corpus": "\\ud800"}',
        b'{"corpus": "hamlet", "name": "\\udfff"}',
        b'{"corpus": "hamlet", "\\ud800": 1}',
        b'{"corpus": "hamlet", "model": {"cell": "\\ud800"}}',
        b'{"corpus": "hamlet", "training": {"seed": ' + b"9" * 5000 + b"}}",
        b'{"corpus": "hamlet", "training": {"seed": ' + b"9" * 4000 + b"}}",
        b'{"corpus": "hamlet", "model": {"hidden_size": ' + b"9" * 4000 + b"}}",
        b'{"corpus": "hamlet", "model": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"corpus": "hamlet", "model": ' + b'{"model":' * DEEP + b"1" + b"}" * DEEP + b"}",
        b'{"corpus": "\\u0000"}',
        b'{"corpus": "hamlet", ' + b", ".join(b'"k%d": 1' % n for n in range(5000)) + b"}",
        b'{"corpus": "hamlet", "' + b"k" * 100_000 + b'": 1}',
        b'{"corpus": "' + b"h" * 100_000 + b'"}',
    ],
    ids=lambda body: f"{body[:50]!r}",
)
def test_a_body_that_cannot_be_meant_answers_4xx(service: Service, body: bytes) -> None:
    service.upload(name="hamlet")

    answer = service.http.post("/jobs", content=body, headers=JSON)

    assert 400 <= answer.status_code < 500
    problem = assert_problem(answer, answer.status_code)
    assert len(answer.content) < 30 * MAX_TEXT
    json.dumps(problem, ensure_ascii=False).encode()  # no lone surrogate goes out
    assert service.http.get("/jobs").json()["data"] == []


def test_a_body_that_is_not_announced_as_json_is_refused(service: Service) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": b"\x80"}):
        assert_problem(service.http.post("/jobs", content=b'{"corpus": "hamlet"}', headers=headers), 422)


def test_an_unforeseen_error_tells_nothing_about_the_inside(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr("app.store.corpora.list_corpora", explode)
    answer = service.http.get("/corpora")

    assert_problem(answer, 500)
    assert "secret" not in answer.text
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("error", "status"), [(DatabaseBusy(15), 503), (DiskFull(), 507)])
def test_a_store_that_cannot_write_now_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("app.store.corpora.add_corpus", fail)
    answer = service.upload()

    assert_problem(answer, status)
    assert ("retry-after" in answer.headers) == (status == 503)
