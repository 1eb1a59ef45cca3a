"""A page in a browser, and everything that it asks for and complains of."""

from typing import Any

WAIT_MS = 30_000


class Watched:
    """Keeps a page's complaints, and the status of each address that it asked for."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self._url = url
        self.complaints: list[str] = []
        self.answers: dict[str, int] = {}
        """Status by address, of everything that was asked for."""
        page.set_default_timeout(WAIT_MS)
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("requestfailed", self._note_failure)
        page.on("request", lambda request: self.answers.setdefault(request.url, 0))
        page.on("response", lambda answer: self.answers.update({answer.url: answer.status}))

    def _note_failure(self, request: Any) -> None:
        # What the page itself gives up. Chromium says so too of a stream that a script read piece by piece to its end.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.url}: {request.failure}")

    def strangers(self) -> list[str]:
        """Addresses outside of the service that the page asked for."""
        own = (f"{self._url}/", f"blob:{self._url}/", "data:")
        return [address for address in self.answers if not address.startswith(own)]
