"""Swagger UI as a person uses it: by looking and clicking. What the page asks for and complains of is all kept."""

from pathlib import Path
from typing import Any

from tests.browser.watched import Watched


class DocsPage(Watched):
    """`/docs` of a service. An operation is named by its operation id."""

    def __init__(self, page: Any, url: str, screenshots: Path) -> None:
        super().__init__(page, url)
        self._screenshots = screenshots
        page.goto(f"{url}/docs")
        page.locator(".opblock").first.wait_for()

    def open(self, name: str) -> Any:
        """The operation, unfolded; the others folded, for with many unfolded ones the page becomes slow."""
        block = self._block(name)
        if "is-open" not in block.get_attribute("class"):
            for other in self.page.locator(".opblock.is-open .opblock-summary-control").all():
                other.click()
            block.locator(".opblock-summary-control").click()
            block.locator("button.execute").wait_for()
        return block

    def _block(self, name: str) -> Any:
        return self.page.locator(f".opblock[id$='-{name}']")

    def choose_file(self, name: str, path: Path) -> None:
        self.open(name).locator("input[type=file]").set_input_files(path)

    def click_execute(self, name: str) -> None:
        """Send the request as it is filled in, and do not wait for the answer. With an empty field nothing is sent."""
        self.open(name).locator("button.execute").click()

    def shown(self, name: str) -> Any:
        """What the page shows of the last answer, once there is one; a 2xx."""
        answer = self.open(name).locator(".live-responses-table tr.response")
        answer.wait_for()
        status = answer.locator(".response-col_status").inner_text()
        assert status.startswith("2"), f"{name} answered {status}: {answer.inner_text()}"
        return answer.locator(".response-col_description")

    def execute(self, name: str) -> Any:
        """What the page shows of the answer to the request as it is filled in."""
        block = self.open(name)
        if block.locator("button.btn-clear").count():
            block.locator("button.btn-clear").click()  # or the last answer would be taken for this one's
        self.click_execute(name)
        return self.shown(name)

    def shown_text(self, name: str) -> str:
        """The body of the last answer, a text, character for character: `inner_text` is what is left by the layout."""
        return str(self.shown(name).locator("pre").first.text_content())

    def picture_width(self, name: str) -> int:
        """In pixels, of the picture that is shown; 0 if it is broken."""
        image = self.shown(name).locator("img")
        return int(image.evaluate("async image => { await image.decode(); return image.naturalWidth }"))

    def photograph(self, name: str) -> None:
        """What a person sees, as a file."""
        self.open(name).evaluate("block => block.scrollIntoView()")
        self.page.screenshot(path=self._screenshots / f"{len(list(self._screenshots.glob('*.png')))}-{name}.png")
