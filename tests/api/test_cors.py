"""Web pages of other origins: shut out, unless a setting names them."""

from pathlib import Path

import httpx

from app.generation.streams import TooManyStreams
from app.settings import Settings
from tests.api.service import assert_problem, running

JSON = {"Content-Type": "application/json"}
PREFLIGHT = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}


def test_without_the_setting_no_origin_is_allowed(http: httpx.Client) -> None:
    answer = http.get("/corpora", headers={"Origin": "https://a.example"})

    assert "access-control-allow-origin" not in answer.headers
    assert http.options("/corpora", headers=PREFLIGHT).status_code == 403


def test_a_page_that_may_call_can_read_that_its_upload_is_too_large(data_dir: Path) -> None:
    """Announced or not, and whoever noticed: the route, the framework, or the limit around both."""
    origin = {"Origin": "https://a.example"}
    large = {"file": ("hamlet.txt", b"x" * 200_000)}
    limits = {"max_corpus_bytes": 100, "max_model_bytes": 150_000}
    with running(Settings(data_dir=data_dir, cors_origins=("https://a.example",), **limits)) as service:
        answers = [
            service.http.post("/corpora", files={"file": ("hamlet.txt", b"x" * 101)}, headers=origin),
            service.http.post("/corpora", files=large, headers=origin),
            service.http.post("/jobs", content=iter([b" " * 1_000_000] * 2), headers=JSON | origin),
            service.http.post("/jobs", content=b" " * 2_000_000, headers=JSON | origin),
        ]

    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        problem = assert_problem(answer, 413)
        assert (problem["title"], problem["code"]) == ("Content Too Large", "content_too_large")
        assert answer.headers["content-length"] == str(len(answer.content))
    assert len({answer.text for answer in answers}) == 1


def test_an_origin_that_is_named_is_allowed_and_no_other(data_dir: Path) -> None:
    with running(Settings(data_dir=data_dir, cors_origins=("https://a.example",))) as service:
        named = service.http.options("/corpora", headers=PREFLIGHT)
        other = service.http.options("/corpora", headers=PREFLIGHT | {"Origin": "https://b.example"})
        refused = service.http.get("/nowhere", headers={"Origin": "https://a.example"})

    assert named.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in other.headers
    assert refused.headers["access-control-allow-origin"] == "https://a.example"


def test_in_a_crowd_who_may_not_ask_is_told_so_and_a_page_that_may_can_read_why(data_dir: Path) -> None:
    origin = {"Origin": "https://a.example"}
    with running(Settings(data_dir=data_dir, cors_origins=("https://a.example",))) as service:
        service.generation.crowded = TooManyStreams(4, 4, 1)
        refused = service.http.post("/generate", headers=origin)
        asked_first = service.http.options("/generate", headers=PREFLIGHT)
        foreign = service.http.post("/generate", headers={"Host": "evil.example"})

    assert assert_problem(refused, 429)["code"] == "too_many_streams"
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
    assert asked_first.status_code == 200
    assert assert_problem(foreign, 403)["code"] == "foreign_host"
