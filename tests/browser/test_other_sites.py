"""A page of another site in the same browser: it can lead a person to the service, but not show it within itself."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.browser.conftest import OTHER_SITE
from tests.system.harness import Installation

pytestmark = pytest.mark.system

WAIT_MS = 30_000


@pytest.fixture(scope="module")
def other_port(fresh: Installation) -> Iterator[int]:
    """The port of a server whose one page frames the documentation, and links to it."""
    html = f'<a href="{fresh.url}/docs">look</a><iframe src="{fresh.url}/docs"></iframe>'.encode()

    class OnePage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), OnePage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(params=[OTHER_SITE, "127.0.0.1"], ids=["another site", "another port"])
def opened(chromium: Any, fresh: Installation, other_port: int, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The other page, and the answer that its frame got."""
    page = chromium.new_page()
    page.set_default_timeout(WAIT_MS)
    with page.expect_response(f"{fresh.url}/docs") as framed:
        page.goto(f"http://{request.param}:{other_port}/")
    yield page, framed.value
    page.close()


def test_another_page_cannot_frame_the_documentation(opened: Any) -> None:
    page, framed = opened

    assert framed.status == 403
    assert page.frame_locator("iframe").locator(".opblock").count() == 0


def test_a_link_of_another_page_leads_to_the_documentation(opened: Any) -> None:
    page, _ = opened
    page.click("a")
    page.locator(".opblock").first.wait_for()
    assert page.title() == "Charsmith - Swagger UI"
