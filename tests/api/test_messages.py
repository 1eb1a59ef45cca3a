"""A refused request is told in plain words what would have been right."""

import json
from typing import Any

import httpx
import pytest

from tests.api.service import TEXT, Service, assert_problem

JSON = {"Content-Type": "application/json"}
FORM = "application/x-www-form-urlencoded"
HOW = "curl -F file=@FILE"


def refused(answer: httpx.Response, status: int = 422) -> str:
    """The detail, in which there is nothing of Python."""
    detail = str(assert_problem(answer, status)["detail"])
    for inside in ("UploadFile", "<class", "Value error", "Input should", "Extra inputs"):
        assert inside not in detail
    return detail


@pytest.mark.parametrize(
    ("headers", "came"), [({"Content-Type": FORM}, f"as {FORM}"), ({}, "without a content type")], ids=["curl", "none"]
)
def test_json_that_is_not_announced_is_told_how_to_be(http: httpx.Client, headers: dict[str, str], came: str) -> None:
    detail = refused(http.post("/jobs", content=b'{"corpus": "hamlet"}', headers=headers))

    assert "Content-Type: application/json" in detail
    assert f"came {came}" in detail


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"corpus":\n "x",}', 422, "line 2, column 6"),
        (b'{"corpus"', 422, "not valid JSON: Expecting ':' delimiter at line 1, column 10"),
        (b'{"corpus": "\xff"}', 400, "not valid UTF-8: byte 0xff at byte 12"),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400, "a whole number of more than 4300 digits"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b"", 422, "must be given, as JSON"),
        (b"[]", 422, "must be an object"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_that_cannot_be_read_is_told_why_and_where(
    http: httpx.Client, body: bytes, status: int, says: str
) -> None:
    assert says in refused(http.post("/jobs", content=body, headers=JSON), status)


@pytest.mark.parametrize("path", ["/corpora", "/models"])
def test_a_file_that_was_not_sent_as_one_is_told_how_to_be(http: httpx.Client, path: str) -> None:
    """A forgotten @; the bytes alone, few and many; another content type; none."""
    forgotten = http.post(path, files={"file": (None, "my.txt")})
    assert "not a text" in refused(forgotten)
    assert "with the @" in refused(forgotten)
    for size, status in ((100, 422), (100_000, 400)):
        detail = refused(http.post(path, content=b"t" * size, headers={"Content-Type": FORM}), status)
        assert HOW in detail
        assert f"came as {FORM}" in detail
    assert "came as text/plain" in refused(http.post(path, content=TEXT, headers={"Content-Type": "text/plain"}))
    assert HOW in refused(http.post(path))


def test_a_form_that_cannot_be_read_is_told_the_parsers_reason(http: httpx.Client) -> None:
    def sent(body: bytes, kind: str) -> str:
        return refused(http.post("/corpora", content=body, headers={"Content-Type": kind}), 400)

    assert "Missing boundary" in sent(b"--a\r\n", "multipart/form-data")
    assert "at index 4" in sent(b"--abc\r\n", "multipart/form-data; boundary=other")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"minutes": 3}, "minutes: unknown, did you mean training.minutes?"),
        ({"corpsu": "x"}, "corpsu: unknown, did you mean corpus? (known here are corpus, name, preset, from_chec"),
        ({"corpus": "x", "training": {"hidden_size": 3}}, "training.hidden_size: unknown, did you mean model.hidden_s"),
        ({"corpus": "x", "training": {"lr": 1}}, "training.lr: unknown; known here are epochs, steps, minutes"),
        ({"corpus": "x", "preset": "huge"}, "preset: must be 'auto', 'tiny', 'small', 'medium' or 'large'"),
        ({"corpus": "x", "model": 5}, "model: must be an object"),
        ({"corpus": ""}, "corpus: must not be empty"),
        ({"corpus": "x", "training": {"steps": 1.5}}, "training.steps: must be a whole number"),
        ({}, "corpus: must be given"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_field_that_is_wrong_is_told_what_is_known_in_its_place(
    http: httpx.Client, body: dict[str, Any], says: str
) -> None:
    assert says in refused(http.post("/jobs", json=body))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/corpora?limt=5", "limt: unknown, did you mean limit? (known here are limit, after)"),
        ("/jobs?stauts=queued", "stauts: unknown, did you mean status?"),
        ("/models?page=2", "page: unknown; known here are limit, after"),
        ("/models/hamlet?step=7", "step: unknown; this call takes no such fields"),
        ("/generate?model=x&temprature=1", "temprature: unknown, did you mean temperature?"),
        ("/generate?model=x&stop=", "stop.0: must not be empty"),
        (f"/generate?model=x&stop={'x' * 257}", "stop.0: must have at most 256 characters"),
        (f"/generate?model=x{'&stop=x' * 17}", "stop: must have at most 16 items"),
        *((f"/corpora?limit={written}", "limit: must be a whole number, in digits")
          for written in ("1_0", "5.0", "%2B5", "%205", "", "%D9%A5")),
        ("/generate?model=x&seed=1_0", "seed: must be a whole number, in digits"),
        ("/generate?model=x&top_k=1.0", "top_k: must be a whole number, in digits"),
    ],
)  # fmt: skip
def test_a_query_is_read_as_strictly_as_a_body(http: httpx.Client, path: str, says: str) -> None:
    assert says in refused(http.get(path))


def test_an_unknown_query_keeps_a_call_from_doing_anything(service: Service) -> None:
    service.upload(name="hamlet")

    assert_problem(service.http.delete("/corpora/hamlet?dry_run=1"), 422, "dry_run")
    assert_problem(service.http.post("/jobs?name=x", json={"corpus": "hamlet"}), 422, "name")
    assert service.http.get("/corpora/hamlet").is_success
    assert service.http.get("/jobs").json()["data"] == []
    assert service.http.get("/healthz?from=load-balancer").is_success


@pytest.mark.parametrize("path", ["/corpora", "/models"])
def test_a_misspelt_part_of_a_form_is_refused_by_name(service: Service, path: str) -> None:
    answer = service.http.post(path, files={"file": ("a.txt", TEXT)}, data={"nmae": "hamlet"})

    assert "nmae: unknown, did you mean name? (known here are file, name)" in refused(answer)
    assert "did you mean file?" in refused(service.http.post(path, files={"fille": ("a.txt", TEXT)}))
    assert service.http.get("/corpora").json()["data"] == []


def test_an_unknown_path_and_a_wrong_method_are_named_with_what_there_is(http: httpx.Client) -> None:
    assert "'/corporas/x'" in refused(http.get("/corporas/x"), 404)
    assert refused(http.put("/corpora"), 405) == "/corpora takes GET, HEAD, POST, not PUT."
    assert len(refused(http.get("/" + "x" * 10_000), 404)) <= 500
