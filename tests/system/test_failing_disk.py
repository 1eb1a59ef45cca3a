"""A disk that answers EIO to writes or syncs: nothing is acknowledged that is not stored, and it goes on afterwards.

The processes are real; a small library that is compiled here and preloaded into them makes their disk fail.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import sqlite_only
from tests.system.harness import TEXT, Installation, wait_for
from tests.system.test_full_disk import is_intact, stored

pytestmark = [
    sqlite_only,
    pytest.mark.system,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None, reason="no compiler for the failing disk"
    ),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("library") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(made), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return made


@pytest.fixture
def installation(tmp_path: Path, library: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    (tmp_path / "failing").mkdir()
    made.environment |= {"LD_PRELOAD": str(library), "FAILING_DISK": str(tmp_path / "failing")}
    yield made
    made.close()


def test_a_quota_that_is_used_up_is_told_as_a_disk_without_room(installation: Installation) -> None:
    installation.start_api()
    installation.upload()
    flag = installation.folder / "failing" / "quota"
    flag.touch()
    try:
        refused = installation.http.post("/corpora", files={"file": ("a.txt", TEXT.upper().encode())})
        assert (refused.status_code, refused.json()["code"]) == (507, "disk_full"), refused.text
        refused = installation.http.post("/jobs", json={"corpus": "bottles", "training": {"steps": 1}})
        assert (refused.status_code, refused.json()["code"]) == (507, "disk_full"), refused.text
    finally:
        flag.unlink()
    installation.upload(TEXT.upper(), "upper")
    assert is_intact(installation.folder / "data" / "charsmith.db") == "ok"


@pytest.mark.parametrize("what", ["write", "sync"])
def test_what_a_failing_disk_did_not_store_is_not_acknowledged_and_nothing_else_is_lost(
    installation: Installation, what: str
) -> None:
    installation.start_api()
    installation.upload()
    worker = installation.start("worker")
    job = installation.submit(steps=10**9)
    job = installation.wait_for_step(job["id"], 40)
    flag = installation.folder / "failing" / what
    flag.touch()
    try:
        refused = installation.http.post("/corpora", files={"file": ("a.txt", TEXT.upper().encode())})
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable"), refused.text
        refused = installation.http.post("/jobs", json={"corpus": "bottles", "training": {"steps": 1}})
        assert refused.status_code == 503, refused.text
        wait_for("the attempt to break off", lambda: installation.has_said("broke off") or None)
        before = stored(installation, job)
    finally:
        flag.unlink()
    assert [corpus["name"] for corpus in installation.http.get("/corpora").json()["data"]] == ["bottles"]
    assert len(installation.http.get("/jobs").json()["data"]) == 1
    assert before, "the checkpoints are still there"

    latest = max(step for step, _ in before)
    now = installation.wait_for_step(job["id"], latest + 20)
    assert now["status"] == "running", installation.logs()
    assert worker.poll() is None
    installation.upload(TEXT.upper(), "upper")
    installation.http.post(f"/jobs/{job['id']}/cancel").raise_for_status()
    installation.wait_for_status(job["id"], "cancelled")
    assert is_intact(installation.folder / "data" / "charsmith.db") == "ok"
