"""Compressed bodies: ten megabytes of them may be ten gigabytes, so none is read."""

import gzip

import pytest

from tests.api.service import TEXT, Service, assert_problem


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "nonsense"])
@pytest.mark.parametrize("path", ["/corpora", "/models", "/jobs", "/generate", "/score", "/healthz"])
def test_a_coded_body_is_refused_saying_what_is_taken(service: Service, path: str, coding: str) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    answer = service.http.post(path, content=gzip.compress(b"\0" * 1_000_000), headers=headers)
    assert assert_problem(answer, 415)["code"] == "unsupported_encoding"
    assert answer.headers["accept-encoding"] == "identity"


def test_a_body_that_says_that_it_is_not_coded_is_taken(service: Service) -> None:
    headers = {"Content-Encoding": "identity"}
    answer = service.http.post("/corpora", files={"file": ("a.txt", TEXT)}, headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_request_without_a_body_may_name_a_coding(service: Service, method: str) -> None:
    for length in ({}, {"Content-Length": "0"}):
        answer = service.http.request(method, "/healthz", headers={"Content-Encoding": "gzip"} | length)
        assert answer.status_code != 415
    assert service.http.get("/healthz", headers={"Content-Encoding": "gzip"}).status_code == 200
