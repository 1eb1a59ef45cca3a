"""A browser at a service that asks for keys: a login opens the documentation, and its button Authorize takes a key."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.store.api_keys import Scope, create_key
from app.store.opening import open_existing
from tests.browser.conftest import SIZE
from tests.browser.docs_page import DocsPage
from tests.system.harness import Installation

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a service that asks for keys, and a key of each of two scopes."""
    made = Installation(tmp_path_factory.mktemp("guarded"))
    try:
        made.start_api()
        with closing(open_existing(made.database_url)) as database:
            scopes = (Scope.GENERATE, Scope.READ)
            keys = {str(scope): create_key(database, scope, frozenset({scope}))[1] for scope in scopes}
        yield made.url, keys
    finally:
        made.close()


def test_without_a_key_the_browser_asks_for_a_login(chromium: Any, guarded: tuple[str, dict[str, str]]) -> None:
    """There is nobody to ask here, so it gives up."""
    from playwright.sync_api import Error

    page = chromium.new_page()
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        page.goto(f"{guarded[0]}/docs")
    page.close()


def test_a_key_logs_in_and_the_button_takes_another(
    chromium: Any, guarded: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    url, keys = guarded
    login = {"username": "anyone", "password": keys["generate"]}
    page = chromium.new_page(viewport=SIZE, http_credentials=login)
    docs = DocsPage(page, url, tmp_path / "screenshots")
    assert '"data": []' in docs.execute("list_models").inner_text(), "the browser shows the key by itself"

    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    dialog.locator(".auth-container", has_text="bearer").locator("input").fill(keys["read"])
    dialog.locator(".auth-container", has_text="bearer").get_by_role("button", name="Apply").click()
    page.screenshot(path=tmp_path / "authorized.png")
    dialog.get_by_role("button", name="Close").first.click()
    with page.expect_request("**/corpora*") as asked:
        assert '"data": []' in docs.execute("list_corpora").inner_text(), "which the login's scope would not open"
    assert asked.value.headers["authorization"] == f"Bearer {keys['read']}"
    assert docs.strangers() == []
    page.close()
