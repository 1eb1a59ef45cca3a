"""Web pages cannot drive the service: DNS rebinding and cross-site requests are refused, programs and links pass."""

from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.api.service import assert_problem, running

FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "",
    "[::1",
    "::1",
    "evil.example@localhost",
    "localhost@evil.example",
    "[::1]evil",
    "[::1].evil.example",
    "[evil.example]",
    "[127.0.0.1]",
    "127.0.0.1:abc",
    "127.0.0.1:",
    "127.0.0.1:99999",
    "127.0.0.1:80:80",
    "localhost/evil.example",
    "localhost?",
    "localhost#",
    "localhost\\evil.example",
    "local host",
    ".localhost",
    "evil..localhost",
    "localhost,evil.example",
    "2130706433.example",
]
OWN_HOSTS = [
    "localhost",
    "LOCALHOST:8000",
    "app.localhost",
    "127.0.0.1:1",
    "[::1]:8000",
    "[::FFFF:127.0.0.1]",
    "192.168.1.5:8000",
    "192.168.1.5:65535",
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_name_that_is_not_ours_is_refused_whatever_it_resolves_to(http: httpx.Client, host: str) -> None:
    problem = assert_problem(http.get("/corpora", headers={"Host": host}), 403)

    assert problem["code"] == "foreign_host"


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_addresses_and_localhost_are_ours(http: httpx.Client, host: str) -> None:
    assert http.get("/corpora", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://127.0.0.1:1",
        "http://localhost",
        "ftp://{own}",
        "evil://{own}",
        "{own}",
        "http://{own}/",
        "http://evil.example@{own}",
        "http://{own} http://evil.example",
    ],
)
@pytest.mark.parametrize("path", ["/corpora", "/generate", "/nowhere"])
def test_a_page_of_another_origin_is_refused_before_anything_is_done(
    http: httpx.Client, origin: str, path: str
) -> None:
    origin = origin.format(own=f"{http.base_url.host}:{http.base_url.port}")
    answer = http.post(path, files={"file": ("a.txt", b"some text")}, headers={"Origin": origin})

    assert assert_problem(answer, 403)["code"] == "foreign_origin"
    assert http.get("/corpora").json()["data"] == []


def test_two_origins_are_none(http: httpx.Client) -> None:
    own = f"http://{http.base_url.host}:{http.base_url.port}"
    headers = [("Origin", own), ("Origin", "https://evil.example")]

    assert assert_problem(http.get("/corpora", headers=headers), 403)["code"] == "foreign_origin"


@pytest.mark.parametrize("origin", ["http://localhost:80", "https://localhost", "HTTP://LOCALHOST"])
def test_our_own_pages_pass_by_either_scheme(http: httpx.Client, origin: str) -> None:
    assert http.get("/corpora", headers={"Host": "localhost", "Origin": origin}).status_code == 200


def test_our_own_pages_pass(http: httpx.Client) -> None:
    own = f"http://{http.base_url.host}:{http.base_url.port}"
    headers = {"Origin": own, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}

    assert http.post("/corpora", files={"file": ("a.txt", b"some text")}, headers=headers).status_code == 201


@pytest.mark.parametrize(
    ("method", "site", "mode", "dest", "status"),
    [
        ("GET", "cross-site", "no-cors", "image", 403),
        ("GET", "same-site", "cors", "empty", 403),
        ("GET", "cross-site", "navigate", "document", 200),
        ("GET", "same-site", "navigate", "document", 200),
        ("GET", "cross-site", "navigate", "iframe", 403),
        ("GET", "same-site", "navigate", "frame", 403),
        ("GET", "cross-site", "navigate", "object", 403),
        ("GET", "cross-site", "navigate", "", 403),
        ("GET", "cross-site", "no-cors", "document", 403),
        ("POST", "cross-site", "navigate", "document", 403),
        ("GET", "none", "navigate", "document", 200),
        ("GET", "same-origin", "cors", "empty", 200),
    ],
)
def test_a_request_without_origin_goes_by_what_the_browser_says_of_it(
    http: httpx.Client, method: str, site: str, mode: str, dest: str, status: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}

    assert http.request(method, "/corpora", headers=headers).status_code == status


def test_names_and_origins_of_the_settings_pass(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir, allowed_hosts=("char.example",), cors_origins=("https://page.example",))
    with running(settings) as service:
        headers = {"Host": "char.example", "Origin": "https://page.example", "Sec-Fetch-Site": "cross-site"}
        assert service.http.get("/corpora", headers=headers).status_code == 200
        assert service.http.get("/corpora", headers={"Host": "other.example"}).status_code == 403
