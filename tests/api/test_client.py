"""The command line's client, against answers that a service may give."""

import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.client import Client, ClientError
from app.store.api_keys import Scope, create_key
from tests.api.service import Service

EVENTS = b"""id: 1
event: status
data: {"status": "queued"}

: a heartbeat

id: 2
event: status
data: {"status": "succeeded"}

"""


def test_a_heartbeat_between_two_events_is_no_event() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, content=EVENTS, headers={"Content-Type": "text/event-stream"})
        return httpx.Response(200, json={"status": "succeeded"})

    client = Client("http://service")
    client._http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(answer))

    assert list(client.follow("job")) == [("status", {"status": "queued"}), ("status", {"status": "succeeded"})]


class CutOff(BaseHTTPRequestHandler):
    """Announces a file and breaks off in the midst of it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Disposition", 'attachment; filename="mine-7.safetensors"')
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(bytes(5_000))
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("there", [None, b"the old one"])
def test_a_download_that_breaks_off_is_told_and_leaves_what_was_there(tmp_path: Path, there: bytes | None) -> None:
    target = tmp_path / "mine-7.safetensors"
    if there is not None:
        target.write_bytes(there)
    with ThreadingHTTPServer(("127.0.0.1", 0), CutOff) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, "-m", "app.cli", "pull", "mine", str(tmp_path), "--force", "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        server.shutdown()

    assert done.returncode == 1
    assert "charsmith: " in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if there is None else [there])


def test_a_service_that_tells_its_workers_to_those_with_a_key_counts_as_ready_and_then_asks_for_one(
    service: Service,
) -> None:
    """To wait for workers that are not told would end in the wrong complaint."""
    key = create_key(service.database, "ci", frozenset({Scope.READ}))[1]
    url = str(service.http.base_url)
    with closing(Client(url)) as stranger:
        stranger.wait_until_ready(20)
        with pytest.raises(ClientError, match="set CHARSMITH_API_KEY"):
            stranger.call("GET", "/models")
    with closing(Client(url, SecretStr(key))) as known:
        with pytest.raises(ClientError, match="did not become ready"):
            known.wait_until_ready(0.5)  # there is no worker
        assert list(known.pages("/models")) == []
