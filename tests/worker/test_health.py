"""A worker's container tells whether its worker lives."""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.store.database import Database
from app.store.workers import announce
from tests.databases import sqlite_only
from worker.health import new_worker_id, worker_beats

HOST = "container"
ROOT = Path(__file__).parents[2]


def beats_of(database: Database, worker_id: str, *, after: int) -> Callable[[float], None]:
    """A sleep in which that worker announces itself, once, at the wait with that number."""
    waits = iter(range(1_000))

    def sleep(_seconds: float) -> None:
        if next(waits) == after:
            announce(database, worker_id, "cpu")

    return sleep


@pytest.mark.parametrize("after", [0, 20])
def test_a_worker_whose_beats_move_lives(database: Database, after: int) -> None:
    announce(database, f"{HOST}-0a", "cpu")
    assert worker_beats(database, HOST, sleep=beats_of(database, f"{HOST}-0a", after=after))


def test_a_worker_that_first_announces_itself_while_we_look_lives(database: Database) -> None:
    assert worker_beats(database, HOST, sleep=beats_of(database, f"{HOST}-0a", after=1))


def test_a_worker_whose_beats_stand_still_does_not(database: Database) -> None:
    announce(database, f"{HOST}-0a", "cpu")
    assert not worker_beats(database, HOST, sleep=lambda _: None)


def test_a_worker_of_another_machine_does_not_count(database: Database) -> None:
    assert not worker_beats(database, HOST, sleep=beats_of(database, f"{HOST}-of-another-0a", after=1))


def check(data_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CHARSMITH_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "worker.health"]
    return subprocess.run(command, env=environment, cwd=data_dir.parent, capture_output=True, text=True)


def database_of(data_dir: Path, *statements: str) -> Path:
    """A file that such statements have made, and nothing of ours."""
    data_dir.mkdir()
    path = data_dir / "charsmith.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


@sqlite_only
def test_a_check_before_there_is_a_database_creates_none(tmp_path: Path) -> None:
    done = check(tmp_path / "data")

    assert done.returncode == 1
    assert "there is no database" in done.stderr
    assert not (tmp_path / "data").exists()


@sqlite_only
@pytest.mark.parametrize(
    "statements",
    [
        (),
        ("CREATE TABLE other (id)",),
        ("CREATE TABLE alembic_version (version_num)", "INSERT INTO alembic_version VALUES ('0001')"),
    ],
    ids=["empty", "another program's", "of an older version"],
)
def test_a_check_leaves_a_database_that_it_cannot_judge_as_it_is(tmp_path: Path, statements: tuple[str, ...]) -> None:
    path = database_of(tmp_path / "data", *statements)
    before = path.read_bytes()

    assert check(tmp_path / "data").returncode == 1
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    assert tables == sum(statement.startswith("CREATE") for statement in statements)
    if not statements:
        assert path.read_bytes() == before == b""


def test_a_living_worker_makes_the_check_succeed(database: Database, tmp_path: Path) -> None:
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.1):
            announce(database, f"{socket.gethostname()}-0a", "cpu")

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        assert check(tmp_path).returncode == 0
    finally:
        done.set()
        beating.join()


def test_every_start_of_a_worker_has_another_name() -> None:
    assert new_worker_id() != new_worker_id()
