"""A backup of a living installation, and another one that goes on from it: real processes, real commands."""

import json
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.databases import sqlite_only
from tests.system.harness import Installation, wait_for

pytestmark = [pytest.mark.system, sqlite_only]

STEPS = 400


def told(installation: Installation, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A command of `charsmith` that has ended, with what it said in the installation's logs."""
    program = installation.start(*arguments)
    status = program.wait(60)
    log = installation.folder / f"{arguments[0]}-{len(installation.programs) - 1}.log"
    return subprocess.CompletedProcess(arguments, status, log.read_bytes())


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Installation]:
    """A second installation, in a folder of its own."""
    (tmp_path / "other").mkdir()
    made = Installation(tmp_path / "other")
    yield made
    made.close()


@contextmanager
def uploads(installation: Installation) -> Iterator[list[str]]:
    """Somebody who uploads texts all the time; the ids of those that were acknowledged."""
    stop, done, draw = threading.Event(), list[str](), random.Random(5)

    def upload() -> None:
        while not stop.is_set():
            done.append(installation.upload("".join(draw.choices("abc def\n", k=100_000)), "load")["id"])

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def test_what_is_restored_has_all_that_was_there_and_the_running_job_ends_as_if_nothing_had_been(
    installation: Installation, other: Installation
) -> None:
    installation.start_api()
    installation.upload()
    installation.start("worker")
    job = installation.submit(steps=STEPS)
    installation.wait_for_step(job["id"], 40)
    file = str(installation.folder / "kept.db")
    with uploads(installation) as uploaded:
        wait_for("some uploads", lambda: len(uploaded) >= 3 or None)
        before = [*uploaded]
        losses, latest = installation.losses(job["id"]), installation.latest_step(installation.job(job["id"]))
        step = installation.job(job["id"])["progress"]["step"]
        made = told(installation, "backup", file)
        assert made.returncode == 0, installation.logs()
    undisturbed = installation.wait_for_status(job["id"], "succeeded", seconds=180)
    assert undisturbed["attempt"] == 1, "the backup kept no heartbeat from being written"

    assert told(other, "restore", file).returncode == 0, other.logs()
    other.start_api()
    for corpus in before:
        assert other.http.get(f"/corpora/{corpus}/text").content, "read to its end, and verified"
    restored = other.job(job["id"])
    assert restored["status"] in ("running", "queued"), "as it was, or noticed already that its worker is gone"
    assert restored["progress"]["step"] >= step
    assert other.losses(job["id"])[: len(losses)] == losses
    assert other.latest_step(restored) >= latest
    other.start("worker")
    done = other.wait_for_status(job["id"], "succeeded", seconds=180)
    assert done["attempt"] == 2
    assert other.losses(job["id"]) == installation.losses(job["id"])
    assert other.weights(done, STEPS) == installation.weights(undisturbed, STEPS)


def test_nothing_is_restored_beside_a_service(installation: Installation) -> None:
    api = installation.start_api()
    corpus = installation.upload()
    file = str(installation.folder / "kept.db")
    assert told(installation, "backup", file).returncode == 0
    refused = told(installation, "backup", file)
    assert (refused.returncode, b"exists; --force replaces it" in refused.stdout) == (1, True)
    refused = told(installation, "restore", file)
    assert (refused.returncode, f"in use by process {api.pid}".encode() in refused.stdout) == (1, True)
    assert installation.http.get(f"/corpora/{corpus['id']}").is_success
    assert b"corpora 1, jobs 0" in told(installation, "verify").stdout


@pytest.mark.parametrize("program", ["api", "worker", "serve", "backup", "verify"])
def test_a_garbage_database_is_refused_at_the_start_and_left_as_it_is(installation: Installation, program: str) -> None:
    database = installation.folder / "data" / "charsmith.db"
    database.parent.mkdir()
    garbage = random.Random(1).randbytes(100_000)
    database.write_bytes(garbage)
    arguments = [program, str(installation.folder / "kept.db")] if program == "backup" else [program]
    refused = told(installation, *arguments)
    assert refused.returncode in (1, 3), refused.stdout
    assert b"file is not a database" in refused.stdout
    assert database.read_bytes() == garbage
    assert not [*database.parent.glob("charsmith.db-*")]


def test_backup_verify_and_restore_tell_programs_what_they_did(installation: Installation) -> None:
    api = installation.start_api()
    corpus = installation.upload()
    file = installation.folder / "kept.db"
    kept = json.loads(told(installation, "backup", str(file), "--json").stdout)
    assert (kept["file"], kept["contents"]["corpora"], kept["contents"]["jobs"]) == (str(file), 1, 0)
    assert json.loads(told(installation, "verify", "--json").stdout)["corpora"] == 1
    api.terminate()
    assert api.wait(30) == 0

    restored = json.loads(told(installation, "restore", str(file), "--json").stdout)
    assert Path(restored["aside"]).exists()
    installation.start_api()
    assert installation.http.get(f"/corpora/{corpus['id']}").is_success
