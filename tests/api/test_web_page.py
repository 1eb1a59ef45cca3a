"""The page's files: which there are, for whom, and from where they come."""

import hashlib
import re

import httpx
import pytest

from app.web_page import CHARTS, FOLDER, PARTS

UPLOT = {
    "uplot.iife.min.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "uplot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""SHA-256 of dist/ in uPlot's own repository, at its release 1.6.31."""
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def test_the_page_names_nothing_that_the_service_does_not_have(http: httpx.Client) -> None:
    page = http.get("/")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "://" not in page.text, "nor its own name: a proxy in front of it may have another"
    named = re.findall(r'(?:href|src)="(web/[^"]+)"', page.text)
    assert len(named) >= 5
    for address in named:
        assert http.get(f"/{address}").is_success, address


def test_no_code_and_no_style_is_within_the_page_and_nothing_else_may_be_asked(http: httpx.Client) -> None:
    text = http.get("/").text

    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "unsafe" not in policy[1]
    assert policy[1].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_each_part_has_its_type_and_is_asked_for_anew_but_sent_once(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/web/{name}")

    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == TYPES[name[name.rindex(".") :]]
    assert answer.headers["cache-control"] == "no-cache"
    again = http.get(f"/web/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_modules_name_only_modules_that_are_there() -> None:
    for path in FOLDER.glob("*.js"):
        for named in re.findall(r'from "(.+?)"', path.read_text(encoding="utf-8")):
            assert named.startswith("./")
            assert named.removeprefix("./") in PARTS, path.name


def test_the_page_reads_only_elements_that_it_has() -> None:
    ids = set(re.findall(r'\sid="([^"]+)"', (FOLDER / "index.html").read_text(encoding="utf-8")))
    for path in FOLDER.glob("*.js"):
        named = set(re.findall(r'\bat\("([^"]+)"\)', path.read_text(encoding="utf-8")))
        assert named <= ids, path.name


@pytest.mark.parametrize("path", ["/web/", "/web/__init__.py", "/web/index.html", "/web/%2e%2e/main.py", "/web/x/y.js"])
def test_there_is_nothing_else(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


@pytest.mark.parametrize("name", sorted(UPLOT))
def test_the_chart_library_is_its_authors(name: str) -> None:
    assert hashlib.sha256((CHARTS / name).read_bytes()).hexdigest() == UPLOT[name]
