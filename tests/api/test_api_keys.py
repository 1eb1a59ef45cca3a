"""API keys over HTTP: who is let in, to what, and that nothing leads around it."""

import base64
import itertools
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Mount

from app.access import OPEN, SCOPES
from app.crowd import OPENING
from app.generation.streams import TooManyStreams
from app.logs import JsonLines
from app.main import create_app
from app.routes.guarded import GuardedRoute
from app.settings import Settings
from app.store import api_keys
from app.store.api_keys import Scope
from app.store.database import Database
from app.store.jobs import get_job
from tests.api.service import Service, assert_problem, running

EVERY = frozenset(Scope)
FOR_ANY_KEY = {"/docs", "/openapi.json", "/swagger"}
"""Paths that are in no document."""


def make_key(database: Database, *scopes: Scope, **limits: Any) -> str:
    """A key that is valid unless its `limits` say otherwise; the text to present."""
    number = len(api_keys.list_keys(database))
    return api_keys.create_key(database, f"key-{number}", frozenset(scopes) or EVERY, **limits)[1]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def assert_refused(answer: httpx.Response) -> dict[str, Any]:
    problem = assert_problem(answer, 401)
    assert answer.headers.get_list("www-authenticate") == [
        'Bearer realm="Charsmith"',
        'Basic realm="Charsmith", charset="UTF-8"',
    ]
    return problem


def routes(service: Service) -> list[tuple[str, str, str]]:
    """Name, method and an address of everything that the service answers, of whatever kind; `HEAD` has its own test."""
    found = []
    for context in iter_route_contexts(service.app.routes):
        path = str(context.path).replace("{id}", "job_x").replace("{key}", "hamlet").replace("{name}", "main.js")
        if isinstance(context.original_route, Mount):
            found += [("", "GET", f"{path}/swagger-ui.css"), ("", "GET", f"{path}/nothing")]
        else:
            found += [(str(context.name), method, path) for method in sorted(set(context.methods or ()) - {"HEAD"})]
    return found


def test_every_call_is_classified(service: Service) -> None:
    contexts = list(iter_route_contexts(service.app.routes))
    calls = {str(each.name) for each in contexts if isinstance(each.original_route, GuardedRoute)}
    others = {(each.path, each.name) for each in contexts if not isinstance(each.original_route, GuardedRoute)}

    assert calls == set(SCOPES), "a new call needs a scope in app.access"
    assert {path for path, name in others if name not in OPEN} == FOR_ANY_KEY
    assert {name for _, name in others} >= set(OPEN)


def test_a_call_that_asks_for_no_scope_keeps_the_service_from_starting(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    from app.routes import jobs

    monkeypatch.setattr(jobs.router, "route_class", APIRoute)
    jobs.router.get("/unguarded")(lambda: None)
    try:
        with pytest.raises(TypeError, match="/unguarded"):
            create_app(Settings(data_dir=data_dir))
    finally:
        jobs.router.routes.pop()


def test_a_call_that_nobody_classified_is_for_admin_alone(
    monkeypatch: pytest.MonkeyPatch, own_service: Service
) -> None:
    monkeypatch.delitem(SCOPES, "list_models")  # type: ignore[arg-type]
    every_other = make_key(own_service.database, *EVERY - {Scope.ADMIN})
    admin = make_key(own_service.database, Scope.ADMIN)

    assert_problem(own_service.http.get("/models", headers=bearer(every_other)), 403)
    assert own_service.http.get("/models", headers=bearer(admin)).is_success


def test_without_a_key_everything_is_refused_but_what_is_named_open(service: Service) -> None:
    revoked, expired = make_key(service.database), make_key(service.database, lifetime=timedelta(microseconds=1))
    api_keys.revoke_key(service.database, "key-0")
    for name, method, path in [
        *routes(service),
        ("", "GET", "/nowhere"),
        ("", "PATCH", "/models"),
        ("", "OPTIONS", "/models"),
    ]:
        for headers in ({}, bearer(revoked), bearer(expired)):
            answer = service.http.request(method, path, headers=headers)
            if name in OPEN:
                assert answer.is_success, path
            else:
                assert_refused(answer)


def test_each_key_opens_what_its_scopes_say_and_nothing_more(service: Service) -> None:
    keys = {scope: make_key(service.database, scope) for scope in Scope}
    for (name, method, path), (scope, key) in itertools.product(routes(service), keys.items()):
        if (method, name) == ("GET", "generate_by_query"):
            path += "?model=nobody"
        answer = service.http.request(method, path, headers=bearer(key))
        assert answer.status_code != 401, (method, path)
        allowed = name not in SCOPES or scope in SCOPES[name] or scope is Scope.ADMIN
        assert (answer.status_code != 403) == allowed, (scope, method, path, answer.text)
        if not allowed:
            problem = assert_problem(answer, 403)
            assert problem["code"] == "missing_scope"
            assert f"scope {' or '.join(sorted(SCOPES[name] | {Scope.ADMIN}))}; yours has {scope}." in problem["detail"]


def test_deleting_is_for_admin_and_looking_needs_read() -> None:
    """The table itself, so that a slip in it is seen."""
    for name, scopes in SCOPES.items():
        verb = name.split("_")[0]
        assert (scopes == frozenset()) == (verb == "delete"), name
        assert (Scope.TRAIN in scopes) == (verb in {"upload", "create", "cancel", "pause", "resume"}), name
        assert (Scope.READ in scopes) == (verb in {"list", "get", "download", "follow"}), name


def test_what_is_wrong_with_a_key_is_told_to_nobody(service: Service) -> None:
    valid, other = make_key(service.database), make_key(service.database)
    expired = make_key(service.database, lifetime=timedelta(microseconds=1))
    lookup, secret = valid.split("_")[1:]
    wrong: list[dict[str, str] | list[tuple[str, str]]] = [
        {},
        {"Authorization": "Bearer"},
        bearer(valid[:-1]),
        bearer(valid.upper()),
        bearer(f"csk_{lookup}_{other.split('_')[2]}"),
        bearer(f"csk_{'a' * 16}_{secret}"),
        bearer(expired),
        bearer("x" * 10_000),
        basic(valid, ""),
        basic("", valid + " "),
        {"Authorization": valid},
        {"Authorization": f"Token {valid}"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic ####"},
        {"Authorization": "Basic /w=="},
        [("Authorization", f"Bearer {valid}"), ("Authorization", f"Bearer {valid}")],
        {"X-Api-Key": valid},
        {"Cookie": f"key={valid}"},
    ]
    told = [assert_refused(service.http.get("/models", headers=headers)) for headers in wrong]
    told += [assert_refused(service.http.get("/models", params={name: valid})) for name in ("key", "api_key", "token")]

    assert all(problem == told[0] for problem in told)


def test_a_key_is_taken_as_a_token_or_as_a_password_in_whatever_case_the_scheme_is_written(service: Service) -> None:
    key = make_key(service.database)
    for headers in (bearer(key), basic("anyone", key), basic("", key), {"Authorization": f"bearer  {key}"}):
        assert service.http.get("/models", headers=headers).is_success, headers
    assert service.http.get("/models", auth=("me", key)).is_success


def test_a_key_opens_the_documentation_with_all_its_parts(service: Service) -> None:
    auth = ("browser", make_key(service.database, Scope.GENERATE))
    for path in ("/docs", "/openapi.json", "/swagger/swagger-ui-bundle.js", "/swagger/favicon-32x32.png"):
        assert service.http.get(path, auth=auth, follow_redirects=True).is_success, path


def test_keys_that_are_made_and_revoked_count_from_the_next_request_on(service: Service) -> None:
    for _ in range(3):  # whatever is remembered in between
        assert service.http.get("/models", headers=bearer("not looked at")).is_success
    key = make_key(service.database)
    assert_refused(service.http.get("/models"))
    for name in ("second", "third"):
        second = api_keys.create_key(service.database, name, EVERY)[1]
        for _ in range(3):
            assert service.http.get("/models", headers=bearer(second)).is_success
        api_keys.revoke_key(service.database, name)
        assert_refused(service.http.get("/models", headers=bearer(second)))
    api_keys.revoke_key(service.database, "key-0")
    assert_refused(service.http.get("/models", headers=bearer(key)))
    assert_refused(service.http.get("/models"))


def test_a_key_expires_though_nothing_is_committed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(service.database, lifetime=timedelta(days=30))
    assert service.http.get("/models", headers=bearer(key)).is_success
    late = service.database.now() + timedelta(days=30)
    monkeypatch.setattr(service.database, "now", lambda: late)
    assert_refused(service.http.get("/models", headers=bearer(key)))


def test_head_is_refused_like_get_and_without_a_body(service: Service) -> None:
    key = make_key(service.database, Scope.TRAIN)
    assert service.http.head("/healthz").status_code == service.http.head("/readyz").status_code == 200
    refused, forbidden = service.http.head("/models"), service.http.head("/models", headers=bearer(key))
    assert (refused.status_code, refused.content) == (401, b"")
    assert len(refused.headers.get_list("www-authenticate")) == 2
    assert (forbidden.status_code, forbidden.content) == (403, b"")
    assert service.http.head("/docs", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/healthz/", "//healthz", "/healthz/../models", "/healthz%2f..", "/HEALTHZ", "/readyz;x", "/web/../models"]
)
def test_no_spelling_of_an_open_address_opens_another(service: Service, path: str) -> None:
    make_key(service.database)
    assert_refused(service.http.get(httpx.URL(str(service.http.base_url) + path)))
    assert_refused(service.http.post("/healthz"))
    assert_refused(service.http.get("/models", headers={"Host": "127.0.0.1", "X-Original-URL": "/healthz"}))


def test_without_a_key_a_body_is_not_read_and_with_the_wrong_scope_neither(own_service: Service) -> None:
    """The limit of a text is 100,000 bytes here: whoever had read it would answer 413, or 422 to what is no JSON."""
    key = make_key(own_service.database, Scope.READ)
    large = {"file": ("hamlet.txt", b"x" * 150_000)}
    assert_refused(own_service.http.post("/corpora", files=large))
    assert_problem(own_service.http.post("/corpora", files=large, headers=bearer(key)), 403)
    assert_problem(own_service.http.post("/jobs", content=b"{", headers=bearer(key)), 403)


def test_a_page_that_may_call_is_asked_for_a_key_but_not_before_it_asks(data_dir: Path) -> None:
    origin = {"Origin": "https://a.example"}
    wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with running(Settings(data_dir=data_dir, cors_origins=("https://a.example",))) as service:
        key = make_key(service.database)
        asked = service.http.options("/jobs", headers=origin | wish)
        refused = service.http.get("/jobs", headers=origin)
        answered = service.http.get("/jobs", headers=origin | bearer(key))

    assert asked.status_code == 200
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert_refused(refused)
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
    assert answered.is_success


def test_other_sites_are_refused_though_the_browser_shows_a_key(service: Service) -> None:
    headers = bearer(make_key(service.database)) | {"Sec-Fetch-Site": "cross-site"}
    assert assert_problem(service.http.post("/jobs", json={}, headers=headers), 403)["code"] == "foreign_origin"


def test_in_a_crowd_who_has_no_key_is_told_so_first(service: Service) -> None:
    make_key(service.database)
    service.generation.crowded = TooManyStreams(4, 4, 1)
    assert_refused(service.http.post("/generate", json={"model": "hamlet"}))


@pytest.mark.parametrize(("method", "path"), OPENING)
def test_in_a_crowd_who_has_no_scope_is_told_so_first(service: Service, method: str, path: str) -> None:
    reads, generates = (make_key(service.database, scope) for scope in (Scope.READ, Scope.GENERATE))
    service.generation.crowded = TooManyStreams(4, 4, 1)
    refused = service.http.request(method, path, headers=bearer(reads))
    assert assert_problem(refused, 403)["code"] == "missing_scope"
    assert assert_problem(service.http.request(method, path, headers=bearer(generates)), 429)


def test_calls_that_a_crowd_is_refused_are_those_of_the_app(service: Service) -> None:
    assert {(method, path): name for name, method, path in routes(service)}.items() >= OPENING.items()


def test_readiness_is_told_to_all_and_the_workers_to_those_with_a_key(service: Service) -> None:
    assert service.http.get("/readyz").json()["workers"] == []
    key = make_key(service.database)
    assert service.http.get("/readyz").json()["workers"] is None
    assert service.http.get("/readyz", headers=bearer(key)).json()["workers"] == []


def test_a_database_that_cannot_be_read_lets_nobody_in(own_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.store.errors import DatabaseFailed

    make_key(own_service.database)

    def fail(*_: object) -> None:
        raise DatabaseFailed("disk I/O error")

    monkeypatch.setattr("app.store.key_ring.Keys", fail)
    assert_problem(own_service.http.get("/docs"), 503)
    assert own_service.http.get("/healthz").is_success
    assert own_service.http.get("/readyz").json()["workers"] is None


def test_a_key_is_in_no_log(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the header where it belongs, nor in an address where it does not."""
    caplog.set_level(logging.DEBUG)
    key, other = make_key(service.database), make_key(service.database, Scope.TRAIN)
    secrets = [text.split("_")[2] for text in (key, other)]
    answers = [
        service.http.get("/models", headers=bearer(key)),
        service.http.get("/models", headers=basic("me", key)),
        service.http.get("/models", headers=bearer(other)),
        service.http.get("/models", headers=bearer(key[:-1])),
        service.http.get(f"/models?api_key={key}"),
        service.http.get(f"/models/{key}", headers=bearer(key)),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 403, 401, 401, 404]
    lines = [JsonLines("service").format(record) for record in caplog.records if record.name != "httpx"]
    assert sum("GET /models" in line for line in lines) == len(answers)
    assert any("GET /models/csk_... " in line for line in lines)
    assert not [line for line in lines if any(secret in line for secret in secrets)]
    assert not [answer.text for answer in answers[:-1] if any(secret in answer.text for secret in secrets)]


def queue(service: Service, key: str, name: str) -> httpx.Response:
    return service.http.post("/jobs", json={"corpus": "hamlet", "name": name}, headers=bearer(key))


@pytest.fixture
def hamlet(service: Service) -> Service:
    """The service, with a text to train on."""
    service.upload(name="hamlet")
    return service


def test_a_job_is_the_one_of_the_key_that_queued_it(hamlet: Service) -> None:
    before = hamlet.enqueue(name="before")
    key, text = api_keys.create_key(hamlet.database, "mine", frozenset({Scope.TRAIN}))
    made = queue(hamlet, text, "mine")

    assert get_job(hamlet.database, made.json()["id"]).key_id == key.id
    assert get_job(hamlet.database, before.id).key_id is None


def test_a_key_may_queue_as_many_jobs_as_it_is_said_to(hamlet: Service) -> None:
    few, many = make_key(hamlet.database, max_queued_jobs=1), make_key(hamlet.database)
    first = queue(hamlet, few, "one")
    refused = queue(hamlet, few, "two")

    assert first.status_code == queue(hamlet, many, "other").status_code == 202
    problem = assert_problem(refused, 429)
    assert problem["code"] == "queue_full"
    assert problem["detail"] == "1 job of this API key is waiting already, no more are taken"
    assert refused.headers["retry-after"]
    hamlet.claim()
    second = queue(hamlet, few, "two")
    assert second.status_code == 202, "the first one runs"
    hamlet.http.post(f"/jobs/{second.json()['id']}/pause", headers=bearer(few))
    assert queue(hamlet, few, "three").status_code == 202
    resumed = hamlet.http.post(f"/jobs/{second.json()['id']}/resume", headers=bearer(few))
    assert_problem(resumed, 429)


@pytest.mark.parametrize("start", [{}, {"from_checkpoint": "hamlet"}])
def test_no_key_gets_the_job_of_another_by_its_idempotency_key(hamlet: Service, start: dict[str, str]) -> None:
    mine, other = (make_key(hamlet.database) for _ in range(2))
    body, once = {"corpus": "hamlet", "name": "once"}, {"Idempotency-Key": "once"}
    first = hamlet.http.post("/jobs", json=body, headers=bearer(mine) | once)
    again = hamlet.http.post("/jobs", json=body, headers=bearer(mine) | once)
    others = hamlet.http.post("/jobs", json=body | start, headers=bearer(other) | once)
    assert again.json()["id"] == first.json()["id"]
    if start:
        assert_problem(others, 404)  # the checkpoint: it was asked for anew
        assert_problem(hamlet.http.post("/jobs", json=body | start, headers=bearer(mine) | once), 409)
    else:
        assert others.json()["id"] != first.json()["id"]
        assert "idempotent-replayed" not in others.headers


def test_the_document_says_how_a_key_is_shown_and_what_it_opens(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {(each["type"], each["scheme"]) for each in schemes.values()} == {("http", "bearer"), ("http", "basic")}
    for operation in (each for path in document["paths"].values() for each in path.values()):
        name = operation["operationId"]
        if name in OPEN:
            assert operation["security"] == []
            continue
        assert operation["security"] == [{scheme: []} for scheme in schemes]
        assert {"401", "403"} <= operation["responses"].keys(), name
        for scope in SCOPES[name] | {Scope.ADMIN}:
            assert f"`{scope}`" in operation["description"].rpartition("\n\n")[2], name
