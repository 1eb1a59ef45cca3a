"""Another program holds the database for ten seconds: everybody waits, nobody loses a job or an answer."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.databases import sqlite_only
from tests.system.harness import TEXT, Installation

pytestmark = [pytest.mark.system, sqlite_only]

LOCKED_SECONDS = 10
LEASE_SECONDS = 13
"""The default, which is made to outlive such a wait."""

HOLD = """
import sys, time
from app.store.sqlite_engine import newest_sqlite
connection = newest_sqlite().connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.environment["CHARSMITH_LEASE_SECONDS"] = str(LEASE_SECONDS)
    yield made
    made.close()


@contextmanager
def locked(installation: Installation, seconds: float) -> Iterator[None]:
    """Within, a process of its own holds the write lock, for so long."""
    path = str(installation.folder / "data" / "charsmith.db")
    command = [sys.executable, "-c", HOLD, path, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        assert holder.wait(60) == 0


def test_a_database_that_is_locked_for_ten_seconds_costs_nothing_but_the_wait(installation: Installation) -> None:
    installation.start_api()
    installation.upload()
    worker = installation.start("worker")
    job = installation.submit(steps=10**9)
    installation.wait_for_step(job["id"], 40)
    answers: list[httpx.Response] = []

    def write() -> None:
        files = {"file": ("b.txt", TEXT.upper().encode())}
        answers.append(httpx.post(f"{installation.url}/corpora", files=files, timeout=60, trust_env=False))

    with locked(installation, LOCKED_SECONDS):
        writer = threading.Thread(target=write)
        writer.start()
        began = time.monotonic()
        while time.monotonic() - began < LOCKED_SECONDS / 2:
            for path in ("/jobs", f"/jobs/{job['id']}", "/corpora", "/models", "/readyz"):
                answer = installation.http.get(path)  # readers wait for no writer
                assert answer.status_code == 200, answer.text
        assert not answers
    step = installation.latest_step(installation.job(job["id"]))
    writer.join(60)
    assert [answer.status_code for answer in answers] == [201], answers

    installation.wait_for_step(job["id"], step + 20)
    now = installation.job(job["id"])
    assert (now["status"], now["attempt"]) == ("running", 1), installation.logs()
    assert worker.poll() is None


def test_a_database_that_is_locked_for_longer_is_told_as_503_and_when_to_come_back(installation: Installation) -> None:
    installation.start_api()
    with locked(installation, LOCKED_SECONDS + 8):
        answer = installation.http.post("/corpora", files={"file": ("a.txt", TEXT.encode())}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    installation.upload()
