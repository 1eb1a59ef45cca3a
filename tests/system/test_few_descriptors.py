"""Strangers that connect and say nothing, where few files may be open: the service stays, and says so."""

import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.databases import once
from tests.process_figures import processor_seconds
from tests.system.harness import Installation, wait_for

pytestmark = [
    once,
    pytest.mark.system,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have other lowest limits"),
]

FILES, STRANGERS = 120, 200
MOST_LINES = 2 * STRANGERS + 200
SECONDS = 3.0
"""Long enough for a loop that runs wild to write tens of thousands of lines."""


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.close()


def limit(installation: Installation, soft: int, hard: int) -> None:
    """Its programs may have so many files open, and raise that to `hard`."""
    first = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"
    installation.command = [sys.executable, "-c", f"{first}; runpy.run_module('app.cli', run_name='__main__')"]


def status(installation: Installation) -> int | None:
    """Of an answer to somebody who comes anew."""
    try:
        return httpx.get(f"{installation.url}/healthz", timeout=30, trust_env=False).status_code
    except httpx.HTTPError:
        return None


def lines(installation: Installation) -> int:
    return sum(path.read_bytes().count(b"\n") for path in installation.folder.glob("*.log"))


def test_strangers_take_neither_the_service_nor_its_log(installation: Installation) -> None:
    limit(installation, FILES, FILES)
    installation.start_api()
    with ExitStack() as strangers:
        for _ in range(STRANGERS):
            stranger = strangers.enter_context(socket.create_connection(("127.0.0.1", installation.port), 30))
            stranger.sendall(b"G")
        time.sleep(SECONDS)
        answer = httpx.get(f"{installation.url}/healthz", timeout=30, trust_env=False)
        assert answer.status_code == 503
        assert answer.json()["code"] == "too_many_connections"
        assert int(answer.headers["retry-after"]) > 0
        assert lines(installation) < MOST_LINES
    wait_for("an answer once the strangers have left", lambda: status(installation) == 200 or None)
    assert not installation.has_said("out of system resource")


def test_a_service_without_a_descriptor_left_waits_for_one_and_makes_no_noise(installation: Installation) -> None:
    pid = installation.start_api().pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))  # as many as are open without a doubt
    before, began = lines(installation), processor_seconds(pid)
    with ExitStack() as strangers:
        for _ in range(STRANGERS):
            strangers.enter_context(socket.create_connection(("127.0.0.1", installation.port), 30))
        wait_for("a failure", lambda: installation.has_said("out of system resource") or None)
        time.sleep(SECONDS)
        assert lines(installation) - before < MOST_LINES
        assert processor_seconds(pid) - began < SECONDS / 2
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        wait_for("an answer beside the strangers", lambda: status(installation) == 200 or None)


def test_the_service_allows_itself_as_many_files_as_it_may(installation: Installation) -> None:
    limit(installation, FILES, 2 * FILES)
    pid = installation.start_api().pid
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (2 * FILES, 2 * FILES)
