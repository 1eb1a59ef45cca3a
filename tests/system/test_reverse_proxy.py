"""The configuration of docs/reverse-proxy.md in a real nginx keeps what the service promises."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.databases import once
from tests.docs.blocks import blocks_of
from tests.system.harness import TEXT, Installation, free_port, wait_for

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
NAME = "charsmith.example.org"
AROUND = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    {documented}
}}
"""

pytestmark = [once, pytest.mark.system, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]


@contextmanager
def documented_nginx(folder: Path, service_port: int) -> Iterator[int]:
    """The port of an nginx before the service: what is documented, but for ports and the longest wait for a head."""
    (block,) = blocks_of("docs/reverse-proxy.md", "nginx")
    port, documented = free_port(), block.text
    for there, here in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("127.0.0.1:8000", f"127.0.0.1:{service_port}"),
        ("client_header_timeout 10s", "client_header_timeout 1s"),
        ("/var/log/nginx/", f"{folder}/"),
    ):
        assert documented.count(there) == 1
        documented = documented.replace(there, here)
    configuration = folder / "nginx.conf"
    configuration.write_text(AROUND.format(folder=folder, documented=documented))
    with (folder / "nginx.log").open("wb") as log:
        nginx = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(configuration)], stderr=log)
    try:
        wait_for("nginx", lambda: _listens(port) or nginx.poll())
        assert nginx.poll() is None, (folder / "nginx.log").read_text()
        yield port
    finally:
        nginx.terminate()
        nginx.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service behind nginx. The service has no worker: jobs stay queued."""
    made = Installation(tmp_path_factory.mktemp("behind"))
    made.environment |= {"CHARSMITH_ALLOWED_HOSTS": NAME, "CHARSMITH_MAX_CORPUS_BYTES": str(3_000_000)}
    try:
        made.start_api()
        # A connection for each request: nginx may end an idle one just when the next is sent on it.
        each = httpx.Limits(max_keepalive_connections=0)
        with (
            documented_nginx(tmp_path_factory.mktemp("nginx"), made.port) as port,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Host": NAME}, timeout=20, limits=each) as http,
        ):
            yield http
    finally:
        made.close()


def test_uploads_of_any_size_meet_the_services_own_limit(behind: httpx.Client) -> None:
    taken = behind.post("/corpora", files={"file": ("a.txt", b"to be " * 400_000)})
    refused = behind.post("/corpora", files={"file": ("a.txt", b"to be " * 600_000)})

    assert taken.status_code == 201
    assert (refused.status_code, refused.headers["content-type"]) == (413, "application/problem+json")


def test_an_event_arrives_while_its_stream_stays_open(behind: httpx.Client) -> None:
    behind.post("/corpora", files={"file": ("a.txt", TEXT.encode())}, data={"name": "bottles"})
    job = behind.post("/jobs", json={"corpus": "bottles"}).json()

    with behind.stream("GET", f"/jobs/{job['id']}/events") as answer:
        assert "queued" in next(line for line in answer.iter_lines() if line.startswith("data:"))


def test_a_long_prompt_may_stand_in_the_address(behind: httpx.Client) -> None:
    answer = behind.get("/generate", params={"model": "nobody", "prompt": "x" * 30_000})

    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_a_prompt_is_not_logged(behind: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> None:
    behind.get("/generate", params={"model": "nobody", "prompt": "confidential"})

    (logged,) = tmp_path_factory.getbasetemp().glob("nginx[0-9]*/charsmith.log")
    wait_for("the log", lambda: "GET /generate" in logged.read_text() or None)
    assert "confidential" not in logged.read_text()


def test_a_page_of_another_name_is_refused(behind: httpx.Client) -> None:
    assert behind.get("/models", headers={"Host": "evil.example"}).status_code == 403


def test_who_is_slow_to_say_what_is_wanted_is_given_up(behind: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", behind.base_url.port or 80), timeout=30) as slow:
        slow.sendall(b"GET /models HTTP/1.1\r\nHost: " + NAME.encode())
        started = time.monotonic()
        with suppress(ConnectionResetError):
            while slow.recv(4096):  # perhaps a 408, then the end
                pass
        assert time.monotonic() - started < 25
