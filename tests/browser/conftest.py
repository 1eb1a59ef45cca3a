"""Fixtures of the browser tests: a fresh service, and its documentation open in a real Chromium.

Skipped, saying so, where there is no Chromium or no Playwright. The browser is the system's, not one of Playwright's.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.docs_page import DocsPage
from tests.system.harness import Installation, serving

if TYPE_CHECKING:
    from tests.browser.web_page import WebPage

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OTHER_SITE = "evil.example"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # As on a machine without a network, but for a name that tests serve pages by.
    f"--host-resolver-rules=MAP {OTHER_SITE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
SIZE = {"width": 1280, "height": 1500}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; its pages share nothing."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Shared by a module's tests."""
    with serving(tmp_path_factory.mktemp("fresh")) as made:
        yield made


@pytest.fixture
def shown(chromium: Any, fresh: Installation, tmp_path: Path) -> Iterator["WebPage"]:
    """The page at `/`, with an empty profile."""
    from tests.browser.web_page import WebPage  # of Playwright's package, which may not be installed

    page = chromium.new_page(viewport=SIZE)
    yield WebPage(page, fresh.url, tmp_path / "screenshots")
    page.close()


@pytest.fixture
def docs(chromium: Any, fresh: Installation, tmp_path: Path) -> DocsPage:
    """The documentation in a page with an empty profile."""
    return DocsPage(chromium.new_page(viewport=SIZE), fresh.url, tmp_path / "screenshots")
