"""A disk without room: told as such, nothing that was stored is lost, and training goes on once there is room again.

On a real file system of 24 MB in memory, which takes root to mount.
"""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.store.sqlite_engine import newest_sqlite
from tests.databases import sqlite_only
from tests.system.harness import TEXT, Installation, wait_for

pytestmark = [pytest.mark.system, sqlite_only]

DISK_MB = 24
LARGE = {"cell": "gru", "hidden_size": 256, "embedding_size": 16, "dropout": 0.1}
"""A resume point of 2.6 MB: there is no room for it when there is none for a small row."""


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    disk = tmp_path / "data"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "charsmith-test", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    made = Installation(tmp_path)
    try:
        yield made
    finally:
        made.close()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


class Filler:
    """A file of somebody else that takes all that is left of the disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "somebody-elses"

    def fill(self, leaving: int = 0) -> None:
        with self._path.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue
            file.truncate(file.tell() - leaving)

    def free(self) -> None:
        self._path.unlink()


def stored(installation: Installation, job: dict) -> list[tuple[int, int]]:
    """Steps and sizes of the checkpoints, each of which can be read to its end."""
    listed = installation.http.get(f"/models/{job['model_id']}/checkpoints").json()["data"]
    return [(each["step"], len(installation.weights(job, each["step"]))) for each in listed]


def is_intact(path: Path) -> str:
    connection = newest_sqlite().connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def test_training_waits_for_room_and_loses_nothing_while_uploads_are_told_that_there_is_none(
    installation: Installation,
) -> None:
    data = installation.folder / "data"
    installation.start_api()
    installation.upload()
    worker = installation.start("worker")
    job = installation.submit(model=LARGE, steps=10**9, evaluate_every=10)
    job = installation.wait_for_step(job["id"], 20)
    filler = Filler(data)
    filler.fill()
    wait_for("the worker to find no room", lambda: installation.has_said("could not be stored") or None)
    before = stored(installation, installation.job(job["id"]))

    large = TEXT.encode() * 100
    for path in ("/corpora", "/models"):
        refused = installation.http.post(path, files={"file": ("a", large)})
        assert (refused.status_code, refused.json()["code"]) == (507, "disk_full"), refused.text
    assert [corpus["name"] for corpus in installation.http.get("/corpora").json()["data"]] == ["bottles"]
    assert installation.http.get("/readyz").status_code == 200
    assert stored(installation, job) == before, "the old checkpoints are all there"

    filler.free()
    latest = max(step for step, _ in before)
    now = installation.wait_for_step(job["id"], latest + 10)
    assert (now["status"], now["attempt"]) == ("running", 1), installation.logs()
    assert worker.poll() is None
    assert installation.http.post("/corpora", files={"file": ("a", large)}).status_code == 201
    assert installation.http.post(f"/jobs/{job['id']}/cancel").status_code == 202
    installation.wait_for_status(job["id"], "cancelled")
    assert is_intact(data / "charsmith.db") == "ok"


def test_a_job_that_finds_no_room_for_its_text_waits_and_is_not_failed(installation: Installation) -> None:
    installation.start_api()
    text = TEXT * 80
    uploaded = installation.http.post("/corpora", files={"file": ("b", text.encode())}, data={"name": "bottles"})
    assert uploaded.status_code == 201, uploaded.text
    filler = Filler(installation.folder / "data")
    job = installation.submit(steps=20)
    filler.fill(leaving=len(text) // 2)  # enough for a claim
    worker = installation.start("worker")
    wait_for("a fourth attempt", lambda: installation.job(job["id"])["attempt"] >= 4 or None)
    assert installation.job(job["id"])["status"] != "failed", "it is no fault of the job"
    assert installation.has_said("No space left")
    filler.free()
    installation.wait_for_status(job["id"], "succeeded", seconds=90)
    assert worker.poll() is None


def test_a_limit_of_file_sizes_is_told_as_a_disk_without_room(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    try:
        service = made.start_api()
        made.upload()
        log = tmp_path / "data" / "charsmith.db-wal"
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (log.stat().st_size + 50_000,) * 2)
        refused = made.http.post("/corpora", files={"file": ("a", TEXT.encode() * 20)})
        assert (refused.status_code, refused.json()["code"]) == (507, "disk_full"), refused.text
        assert [corpus["name"] for corpus in made.http.get("/corpora").json()["data"]] == ["bottles"]
        assert made.http.get("/corpora/bottles/text").text == TEXT
    finally:
        made.close()
    assert is_intact(tmp_path / "data" / "charsmith.db") == "ok"


def test_a_text_is_kept_whole_or_not_at_all_when_the_disk_fills_up_under_it(installation: Installation) -> None:
    installation.start_api()
    too_large = b"so long lives this, and this gives life to thee\n" * (DISK_MB * 1_000_000 * 2 // 3 // 48)
    refused = httpx.post(f"{installation.url}/corpora", files={"file": ("a", too_large)}, timeout=60, trust_env=False)
    assert (refused.status_code, refused.json()["code"]) == (507, "disk_full"), refused.text
    assert installation.http.get("/corpora").json()["data"] == []
    installation.upload()
    assert is_intact(installation.folder / "data" / "charsmith.db") == "ok"
