"""Web pages of other origins: shut out, unless a setting names them."""

from pathlib import Path

import httpx

from app.settings import Settings
from tests.api.service import running

PREFLIGHT = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}


def test_without_the_setting_no_origin_is_allowed(http: httpx.Client) -> None:
    answer = http.get("/corpora", headers={"Origin": "https://a.example"})

    assert "access-control-allow-origin" not in answer.headers
    assert http.options("/corpora", headers=PREFLIGHT).status_code == 403


def test_an_origin_that_is_named_is_allowed_and_no_other(data_dir: Path) -> None:
    with running(Settings(data_dir=data_dir, cors_origins=("https://a.example",))) as service:
        named = service.http.options("/corpora", headers=PREFLIGHT)
        other = service.http.options("/corpora", headers=PREFLIGHT | {"Origin": "https://b.example"})
        refused = service.http.get("/nowhere", headers={"Origin": "https://a.example"})

    assert named.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in other.headers
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
