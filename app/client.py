"""A client of a running service, for the command line and the demo: the same HTTP calls that anyone can make.

Knows no terminal. Every refusal of the service becomes a `ClientError` with the problem's own words.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from httpx_sse import connect_sse
from pydantic import SecretStr

from app.settings import variable_name

UNHURRIED = httpx.Timeout(60, connect=5, read=None)
"""For answers that are silent until all is done: a long text as JSON, a large model that is being checked."""
RECONNECT_SECONDS = 60.0
"""How long following a job outlives a service that is away, as when it restarts."""


def service_url(host: str, port: int) -> str:
    """The address at which a service that listens on `host` is called from its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


KEY_VARIABLE = variable_name("api_key")


class ClientError(Exception):
    """The service refused, or could not be reached. The message is for a person."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def _explain(response: httpx.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):  # another program's answer
        return f"the service answered {response.status_code}"
    errors = [f"{e['field']}: {e['message']}" for e in problem.get("errors", [])]
    return "; ".join(errors) or str(problem.get("detail") or problem.get("title"))


class Client:
    """Calls of one service at `url`, with an API key if one is given. Not for several threads."""

    def __init__(self, url: str, api_key: SecretStr | None = None, *, seconds: float = 60) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        shown = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        self._has_key = bool(shown)
        self._http = httpx.Client(
            base_url=self.url, headers=shown, timeout=httpx.Timeout(seconds, connect=min(seconds, 5)), trust_env=False
        )

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON answer. Raises ClientError."""
        with self._errors():
            response = self._http.request(method, path, **options)
            self._check(response)
            return response.json() if response.content else None

    def _check(self, response: httpx.Response) -> None:
        if response.is_error:
            response.read()
            raise ClientError(self._explain(response), response.status_code)

    def _explain(self, response: httpx.Response) -> str:
        if response.status_code == httpx.codes.UNAUTHORIZED:
            if self._has_key:
                return f"{self.url} does not take the API key of {KEY_VARIABLE}: it is unknown, revoked or expired"
            return f"{self.url} asks for an API key: set {KEY_VARIABLE} to one (`charsmith keys create` makes them)"
        return _explain(response)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise ClientError(f"no answer from {self.url} ({reason}); `charsmith serve` starts a service") from error
        except ValueError as error:  # NaN, or half a character
            raise ClientError(f"this cannot be sent: {error}") from error

    def pages(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page. Raises ClientError."""
        after: str | None = None
        while True:
            page = self.call("GET", path, params={"limit": 100, **query, **({"after": after} if after else {})})
            yield from page["data"]
            after = page["next"]
            if after is None:
                return

    def wait_until_ready(self, seconds: float, still_wanted: Callable[[], bool] = lambda: True) -> None:
        """Return once the service is ready and has a worker. Raises ClientError when it does not come up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and still_wanted():
            try:
                workers = self.call("GET", "/readyz")["workers"]
                if workers or workers is None:  # not told without a valid key: the next call says what is wrong
                    return
            except ClientError:
                pass
            time.sleep(0.1)
        raise ClientError(f"the service at {self.url} did not become ready")

    def upload(self, file: BinaryIO, file_name: str, name: str | None = None) -> dict[str, Any]:
        """The corpus of a text; the first one if the same text was uploaded before."""
        data = {"name": name} if name else {}
        answer: dict[str, Any] = self.call(
            "POST", "/corpora", files={"file": (file_name, file, "text/plain")}, data=data
        )
        return answer

    def upload_path(self, path: Path, name: str | None = None) -> dict[str, Any]:
        with path.open("rb") as file:
            return self.upload(file, path.name, name)

    def push(self, path: Path, name: str | None = None) -> dict[str, Any]:
        """The model that a file has become."""
        with path.open("rb") as file:
            files = {"file": (path.name, file, "application/octet-stream")}
            data = {"name": name} if name else {}
            answer: dict[str, Any] = self.call("POST", "/models", files=files, data=data, timeout=UNHURRIED)
        return answer

    @contextmanager
    def download(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """An answer whose body is not read yet. Raises ClientError, also for a body that breaks off."""
        with self._errors(), self._http.stream("GET", path, **options) as response:
            self._check(response)
            yield response

    def submit(self, request: dict[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """Queue a job."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        answer: dict[str, Any] = self.call("POST", "/jobs", json=request, headers=headers)
        return answer

    def follow(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """A job's events as (type, data), from the first to the last; reconnects where it left off."""
        last_id, away_since = "", None
        while True:
            try:
                for event_id, kind, data in self._events(job_id, last_id):
                    last_id, away_since = event_id or last_id, None
                    yield kind, data
                if self.call("GET", f"/jobs/{job_id}")["status"] not in ("queued", "running"):
                    return
                away_since = None
            except (httpx.TransportError, ClientError) as error:
                if isinstance(error, ClientError) and error.status is not None:
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > RECONNECT_SECONDS:
                    raise ClientError(f"no answer from {self.url}: {error}") from error
            time.sleep(0.5)  # the service is restarting: it ended the stream, not the job

    def _events(self, job_id: str, last_id: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with connect_sse(self._http, "GET", f"/jobs/{job_id}/events", headers=headers) as source:
            self._check(source.response)
            for event in source.iter_sse():
                if event.data:  # httpx-sse makes an empty event of a heartbeat's comment once an id was sent
                    yield event.id, event.event, json.loads(event.data)

    def generate(self, request: dict[str, Any]) -> Iterator[str]:
        """The text, piece by piece as it is written."""
        with self._errors(), self._http.stream("POST", "/generate", json=request) as response:
            self._check(response)
            yield from response.iter_text()

    def generate_document(self, request: dict[str, Any]) -> dict[str, Any]:
        """The whole text, or texts, and the state to go on from."""
        accept = {"Accept": "application/json"}
        answer: dict[str, Any] = self.call("POST", "/generate", json=request, headers=accept, timeout=UNHURRIED)
        return answer
