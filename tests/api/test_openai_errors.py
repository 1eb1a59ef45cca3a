"""Below `/v1` every error has OpenAI's form, whoever answers: routes, middlewares, or nobody that we thought of."""

import gzip
import json
import logging
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from app import slow_bodies
from app.generation.streams import TooManyStreams
from app.openai.absent import INSTEAD, why_absent
from app.openai.dialect import is_openai
from app.settings import Settings
from app.store import api_keys
from app.store.api_keys import Scope
from app.store.errors import DatabaseBusy
from tests.api.openai_clients import client_of, refused
from tests.api.service import TEXT, Service, assert_problem, running
from tests.bad_inputs.wire import announced

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with client_of(service.http) as made:
        yield made


def test_the_clients_own_errors_are_raised(service: Service) -> None:
    api_keys.create_key(service.database, "reader", frozenset({Scope.READ}))
    with client_of(service.http, "csk_wrong") as other, refused(401, code="invalid_api_key") as stranger:
        other.models.list()
    assert isinstance(stranger.value, openai.AuthenticationError)
    assert len(stranger.value.response.headers.get_list("www-authenticate")) == 2


def test_a_key_opens_what_its_scopes_say(service: Service) -> None:
    _, key = api_keys.create_key(service.database, "reader", frozenset({Scope.READ}))
    with client_of(service.http, key) as reader:
        assert list(reader.models.list()) == []
        with refused(403, code="missing_scope", says="scope admin or train"):
            reader.files.create(file=TEXT, purpose="fine-tune")
        with refused(403, code="missing_scope", says="scope admin or generate"):
            reader.completions.create(model="tiny", prompt="a")
        with refused(403, code="missing_scope", says="scope admin"):
            reader.models.delete("tiny")


def test_a_crowd_is_told_when_to_come_again(client: openai.OpenAI, service: Service) -> None:
    service.generation.crowded = TooManyStreams(4, 4, 1)
    with refused(429, code="too_many_streams") as raised:
        client.completions.create(model="tiny", prompt="a")
    assert isinstance(raised.value, openai.RateLimitError)
    assert raised.value.type == "rate_limit_error"
    assert int(raised.value.response.headers["retry-after"]) > 0


def test_a_full_queue_too(client: openai.OpenAI, service: Service) -> None:
    for number in range(3):
        service.enqueue(f"job-{number}")
    with refused(429, code="queue_full") as raised:
        client.fine_tuning.jobs.create(model="auto", training_file="hamlet")
    assert int(raised.value.response.headers["retry-after"]) > 0


def test_what_openai_has_and_we_have_not_says_so(client: openai.OpenAI) -> None:
    with refused(404, says="hold no conversation: use /v1/completions"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    with refused(404, says="Charsmith has no /v1/embeddings"):
        client.embeddings.create(model="tiny", input="hello")
    with refused(404, says="POST /v1/files"):
        client.uploads.create(bytes=1, filename="a.txt", mime_type="text/plain", purpose="fine-tune")
    with refused(404, says="Charsmith has no /v1/responses"):
        client.responses.create(model="tiny", input="hello")
    with refused(404, says="scopes of API keys"):
        client.fine_tuning.checkpoints.permissions.list("model_x@1")
    with refused(404, says="below /v1 there are files"):
        client.get("/nothing", cast_to=object)


def test_each_absence_is_told_for_its_whole_branch() -> None:
    for beginning, reason in INSTEAD.items():
        for path in (f"/v1/{beginning}", f"/v1/{beginning}/x/y"):
            assert reason in (why_absent(path) or "")
    assert "below /v1" in (why_absent("/v1/chatter") or "")
    assert why_absent("/nowhere") is why_absent("/v1x/chat") is None


def test_only_what_is_below_v1_is_of_the_dialect(service: Service) -> None:
    assert [is_openai(path) for path in ("/v1", "/v1/", "/v1/x", "/v1x", "/", "/jobs/v1/x")] == [True] * 3 + [False] * 3
    for path in ("/v1", "/v1/", "/v1/nothing"):
        assert_problem(service.http.get(path), 404)
    assert service.http.get("/v1x").headers["content-type"] == "application/problem+json"


def test_a_wrong_method_names_the_right_ones(service: Service) -> None:
    answer = service.http.put("/v1/models")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"model": "\\ud800"}',
        b'{"model": "tiny", "\\ud800": 1}',
        b'{"model": "tiny", "prompt": "\\udfff"}',
        b'{"model": "tiny", "temperature": NaN}',
        b'{"model": "tiny", "seed": ' + b"9" * 5000 + b"}",
        b'{"model": "tiny", "prompt": [' + b"9" * 4000 + b"]}",
        b'{"model": "tiny", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "tiny", "prompt": [' + b",".join([b"-1"] * 300_000) + b"]}",
        b'{"model": "tiny", "prompt": [' + b",".join([b"null"] * 200_000) + b"]}",
        b'{"model": "tiny", ' + b", ".join(b'"k%d": 1' % n for n in range(5000)) + b"}",
    ],
    ids=lambda body: f"{body[:40]!r}",
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/fine_tuning/jobs"])
def test_a_body_that_cannot_be_meant_answers_400(service: Service, path: str, body: bytes) -> None:
    answer = service.http.post(path, content=body, headers=JSON)
    assert_problem(answer, 400)
    assert len(answer.content) < 10_000


def test_a_body_that_is_not_announced_as_json_is_refused(service: Service) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}):
        assert_problem(service.http.post("/v1/completions", content=b'{"model": "tiny"}', headers=headers), 400)
    assert_problem(service.http.post("/v1/files", json={"purpose": "fine-tune"}), 400, "file")


def test_a_body_that_is_too_large_is_refused_whoever_notices(service: Service) -> None:
    announced_size = service.http.post("/v1/fine_tuning/jobs", content=b" " * 3_000_000, headers=JSON)
    assert assert_problem(announced_size, 413)["code"] == "content_too_large"
    chunked = service.http.post("/v1/fine_tuning/jobs", content=iter([b" " * 100_000] * 30), headers=JSON)
    assert_problem(chunked, 413)


def test_a_coded_body_is_refused(service: Service) -> None:
    headers = JSON | {"Content-Encoding": "gzip"}
    answer = service.http.post("/v1/completions", content=gzip.compress(b"{}"), headers=headers)
    assert_problem(answer, 415)
    assert answer.headers["accept-encoding"] == "identity"


def test_a_foreign_page_is_refused(service: Service) -> None:
    answer = service.http.get("/v1/models", headers={"Origin": "https://elsewhere.example"})
    assert assert_problem(answer, 403)["code"] == "foreign_origin"


@pytest.fixture
def impatient(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(slow_bodies, "IDLE_SECONDS", 0.5)
    with running(Settings(data_dir=data_dir)) as made:
        yield made


def test_a_body_that_stands_still_is_given_up(impatient: Service) -> None:
    with socket.create_connection(impatient.address, timeout=20) as connection:
        connection.sendall(b"".join(announced("/v1/completions", 1000, b'{"model": "', "application/json")))
        answer = HTTPResponse(connection)
        answer.begin()
        error = json.loads(answer.read())["error"]
    assert (answer.status, error["code"]) == (408, "body_too_slow")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Connection"] == "close"


def test_a_store_that_cannot_be_used_now_is_503(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DatabaseBusy(15)

    monkeypatch.setattr("app.store.corpora.list_corpora", fail)
    with caplog.at_level(logging.WARNING), refused(503, code="store_unavailable") as raised:
        client.files.list()
    assert raised.value.type == "server_error"  # type: ignore[attr-defined]
    assert int(raised.value.response.headers["retry-after"]) > 0
    assert str(raised.value.request_id) in caplog.text, "by which the log is searched"


def test_an_unforeseen_error_tells_nothing_about_the_inside(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr("app.store.corpora.list_corpora", explode)
    answer = service.http.get("/v1/files")
    assert assert_problem(answer, 500)["code"] == "internal_error"
    assert "secret" not in answer.text


def test_every_answer_has_an_id_and_its_guards(service: Service) -> None:
    answers = [service.http.get("/v1/models"), service.http.get("/v1/nothing"), service.http.head("/v1/models")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert all(answer.headers["x-frame-options"] == "DENY" for answer in answers)


def test_head_tells_what_get_would(service: Service) -> None:
    for path, status in (("/v1/models", 200), ("/v1/models/nobody", 404)):
        answer = service.http.head(path)
        assert (answer.status_code, answer.headers["content-type"], answer.content) == (status, "application/json", b"")
        assert service.http.get(path).status_code == status, "on the same connection"


def test_what_is_misspelt_in_a_query_is_refused(service: Service) -> None:
    wrong: list[tuple[str, Any]] = [("/v1/files", "limt"), ("/v1/models", "limit"), ("/v1/fine_tuning/jobs", "status")]
    for path, name in wrong:
        assert_problem(service.http.get(path, params={name: 1}), 400, name)


def test_an_errors_body_has_its_own_length(http: httpx.Client) -> None:
    answer = http.get("/v1/files/日本")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "日本" in assert_problem(answer, 404)["detail"]
