"""The page at `/` as a person uses it: by looking, clicking and typing."""

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.watched import WAIT_MS, Watched


class WebPage(Watched):
    """The page of a service. Its parts are named as in its navigation."""

    def __init__(self, page: Page, url: str, screenshots: Path) -> None:
        super().__init__(page, url)
        self._screenshots = screenshots
        self.page: Page = page
        expect.set_options(timeout=WAIT_MS)
        page.goto(url)

    def open(self, part: str) -> Locator:
        """One of the parts, by its link."""
        self.page.get_by_role("navigation").get_by_role("link", name=part, exact=True).click()
        shown = self.page.get_by_role("region", name=part, exact=True)
        expect(shown).to_be_visible()
        return shown

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def upload(self, path: Path) -> None:
        self.page.get_by_label("Drop a text here").set_input_files(path)
        expect(self.page.get_by_role("heading", name=path.stem)).to_be_visible()

    def start(self, **settings: str) -> None:
        """A training of the text that is shown, with so many of all settings."""
        self.button("Train on it").click()
        self.page.get_by_text("All settings").first.click()
        for name, value in settings.items():
            self.page.get_by_label(name.replace("_", " "), exact=True).fill(value)
        self.button("Start training").click()
        expect(self.page.locator("#run")).to_be_visible()

    def expect_status(self, status: str, seconds: float = 240.0) -> None:
        expect(self.page.locator("#run-status")).to_have_text(re.compile(f"^{status}"), timeout=1000 * seconds)

    def written(self) -> str:
        return self.page.locator("#written").text_content() or ""

    def photograph(self, name: str) -> None:
        self._screenshots.mkdir(exist_ok=True)
        self.page.screenshot(path=self._screenshots / f"{name}.png", full_page=True)
