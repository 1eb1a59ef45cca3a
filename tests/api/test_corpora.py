"""Uploading, reading back and deleting texts over HTTP."""

import hashlib
import socket
from pathlib import Path

import httpx
import pytest

from tests.api.service import TEXT, Service, assert_problem, walk


def test_an_upload_answers_201_with_everything_about_the_text(http: httpx.Client) -> None:
    text = "naïve 日本\r\n".encode() * 3

    answer = http.post("/corpora", files={"file": ("a.txt", text)}, data={"name": "mixed"})

    assert answer.status_code == 201
    corpus = answer.json()
    assert answer.headers["location"] == f"/corpora/{corpus['id']}"
    assert corpus["id"].startswith("corpus_")
    assert corpus["name"] == "mixed"
    assert corpus["bytes"] == len(text)
    assert corpus["characters"] == len(text.decode())
    assert corpus["vocabulary_size"] == len(set(text.decode()))
    assert corpus["sha256"] == hashlib.sha256(text).hexdigest()
    assert corpus["preview"] == text.decode()
    assert corpus["created_at"].endswith("Z")


def test_the_same_bytes_again_answer_200_and_the_first_corpus(service: Service) -> None:
    first = service.upload(name="first")
    second = service.upload(name="second")

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() | {"notice": None} == first.json()


def test_an_upload_whose_name_was_not_taken_says_so(service: Service) -> None:
    first, same, other = (service.upload(name=name).json() for name in ("first", "first", "second"))

    assert (first["notice"], same["notice"]) == (None, None)
    assert other["name"] == "first"
    assert "keeps its name 'first': 'second' was not taken for it" in other["notice"]


@pytest.mark.parametrize("key", ["id", "name"])
def test_a_corpus_is_found_by_id_and_by_name(service: Service, key: str) -> None:
    corpus = service.upload().json()
    del corpus["byte_order_mark_dropped"], corpus["notice"]  # facts about the upload

    assert service.http.get(f"/corpora/{corpus[key]}").json() == corpus


def test_a_name_means_the_newest_corpus_of_that_name(service: Service) -> None:
    service.upload(b"the first text", name="same")
    newest = service.upload(b"the second text", name="same").json()["id"]

    assert service.http.get("/corpora/same").json()["id"] == newest


def test_a_text_comes_back_byte_for_byte(service: Service) -> None:
    text = "one\r\ntwo\rthree\n\u2028 \u00e9 e\u0301 👩‍👩‍👧\t".encode()
    service.upload(text, name="endings")

    answer = service.http.get("/corpora/endings/text")

    assert answer.content == text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == str(len(text))
    assert answer.headers["content-disposition"] == 'attachment; filename="endings.txt"'


def test_a_byte_order_mark_is_dropped_and_the_answer_says_so(service: Service) -> None:
    marked = service.upload(b"\xef\xbb\xbfmarked", name="marked")
    again = service.upload(b"marked")

    assert service.http.get("/corpora/marked/text").content == b"marked"
    assert (marked.status_code, marked.json()["byte_order_mark_dropped"]) == (201, True)
    assert (again.status_code, again.json()["byte_order_mark_dropped"]) == (200, False)
    assert again.json()["id"] == marked.json()["id"]


@pytest.mark.parametrize(
    ("text", "message", "byte_offset"),
    [
        (b"", "empty", None),
        (b"a", "one character", None),
        (b"good \xff bad", "byte 5", 5),
        ("UTF-16".encode("utf-16"), "UTF-16", 0),
        (b"nul \x00 in it", "byte 4", 4),
    ],
)
def test_what_is_no_text_is_refused_saying_why_and_where(
    service: Service, text: bytes, message: str, byte_offset: int | None
) -> None:
    problem = assert_problem(service.upload(text), 422, "file")

    assert problem["code"] == "not_text"
    assert message in problem["detail"]
    assert problem.get("byte_offset") == byte_offset
    assert service.http.get("/corpora").json()["data"] == []


def test_a_form_without_a_file_is_refused_naming_it(http: httpx.Client) -> None:
    assert_problem(http.post("/corpora", data={"name": "x"}), 422, "file")
    assert_problem(http.post("/corpora", data={"file": "a text, but not as a file"}), 422, "file")
    assert_problem(http.post("/corpora"), 422, "file")


def test_a_broken_form_is_refused(http: httpx.Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}

    assert_problem(http.post("/corpora", content=b"--x\r\nnothing of the kind", headers=headers), 400)
    assert_problem(http.post("/corpora", content=b"", headers={"Content-Type": "multipart/form-data"}), 400)


def test_a_second_file_in_a_form_is_refused(http: httpx.Client) -> None:
    files = [("file", ("a", b"first text")), ("file", ("b", b"second text"))]

    assert_problem(http.post("/corpora", files=files), 400)


@pytest.mark.parametrize("name", ["a b", "../etc", "x" * 65, "corpus_" + "a" * 26, "é", "nul\x00", "cr\r\nlf"])
def test_a_name_that_may_not_be_given_is_refused(service: Service, name: str) -> None:
    assert_problem(service.upload(name=name), 422, "name")


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("shakespeare.txt", "shakespeare"),
        ("../../etc/passwd", "passwd"),
        ("C:\\texts\\War and Peace.txt", "War-and-Peace"),
        ("données.txt", "donnees"),
        ("日本.txt", "corpus"),
        ("two\r\nX-Header: lines.txt", "two-0D-0AX-Header-lines"),  # httpx escapes line ends as browsers do
        ("x" * 10_000, "x" * 64),
        ("corpus_" + "a" * 26, "corpus"),
    ],
)
def test_a_file_name_becomes_a_safe_name(service: Service, file_name: str, name: str) -> None:
    answer = service.upload(file_name=file_name)

    if len(file_name) > 5000:
        assert answer.status_code in (201, 400)  # the form parser bounds its headers
    else:
        assert answer.json()["name"] == name


def test_a_text_over_the_limit_answers_413_whether_announced_or_not(service: Service) -> None:
    limit = service.settings.max_corpus_bytes
    assert service.upload(b"ab" * (limit // 2)).status_code == 201

    assert_problem(service.upload(b"x" * (limit + 1)), 413)
    assert_problem(service.upload(b"x" * (limit * 4)), 413)
    assert service.http.get("/corpora").json()["data"][1:] == []


@pytest.mark.parametrize(
    "request_line",
    [
        b"POST /corpora HTTP/1.1\r\n",
        b"POST /corpora HTTP/1.1\r\nOrigin: https://evil.example\r\n",
        b"POST /nowhere HTTP/1.1\r\n",
        b"PUT /corpora HTTP/1.1\r\n",
    ],
    ids=["too large", "foreign origin", "unknown path", "unknown method"],
)
def test_a_refused_upload_is_cut_off_however_much_a_client_would_go_on_sending(
    service: Service, request_line: bytes
) -> None:
    head = request_line + (
        b"Host: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    chunk = b"x" * 50_000
    sent = 0
    with socket.create_connection(service.address, timeout=20) as raw:
        raw.sendall(head + b"%x\r\n%s\r\n" % (len(part), part))
        try:
            for _ in range(2000):  # 100 MB, a thousand times the limit
                raw.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                sent += len(chunk)
        except OSError:
            pass
        assert sent < 50_000_000
    assert service.http.get("/corpora").json()["data"] == []


def test_other_calls_take_small_bodies_only(http: httpx.Client) -> None:
    assert_problem(http.post("/jobs", content=b" " * 2_000_000, headers={"Content-Type": "application/json"}), 413)


def test_a_walk_through_the_pages_sees_each_corpus_once_newest_first(service: Service) -> None:
    made = [service.upload(f"text number {n}".encode(), name=f"n{n}").json()["id"] for n in range(7)]

    for limit in (1, 3, 7, 100):
        assert [corpus["id"] for corpus in walk(service.http, "/corpora", limit)] == made[::-1]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=" + "9" * 5000, "after=corpus_nothing"])
def test_a_page_that_cannot_be_is_refused_naming_the_field(http: httpx.Client, query: str) -> None:
    assert_problem(http.get(f"/corpora?{query}"), 422, query.split("=")[0])


def test_a_deleted_corpus_is_gone(service: Service) -> None:
    corpus = service.upload().json()

    assert service.http.delete(f"/corpora/{corpus['id']}").status_code == 204
    assert_problem(service.http.get(f"/corpora/{corpus['id']}"), 404)
    assert_problem(service.http.delete(f"/corpora/{corpus['id']}"), 404)


def test_a_corpus_that_a_waiting_job_needs_cannot_be_deleted(service: Service) -> None:
    job = service.enqueue()

    assert_problem(service.http.delete("/corpora/hamlet"), 409)
    assert service.http.get("/corpora/hamlet/text").content == TEXT
    service.http.post(f"/jobs/{job.id}/cancel")
    assert service.http.delete("/corpora/hamlet").status_code == 204


@pytest.mark.parametrize("key", ["nothing", "corpus_" + "a" * 26, "x" * 5000, "%00", "%ff", "..%2f..", "a@b"])
def test_an_unknown_corpus_answers_404(http: httpx.Client, key: str) -> None:
    assert_problem(http.get(f"/corpora/{key}"), 404)


def test_abandoned_spools_of_a_crashed_service_are_swept_at_the_start(tmp_path: Path) -> None:
    import os

    from app.main import spool_in

    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))

    with spool_in(tmp_path):
        assert not old.exists()
        assert new.exists()
