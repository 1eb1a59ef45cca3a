"""A database moved to another: the same to the last row and byte, or what it was to be moved to is as it was."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, create_engine, insert, inspect, make_url, text, update
from typer.testing import CliRunner

from app.cli import cli
from app.store import blobs, claims, jobs, moving, moving_ends, postgres_engine
from app.store.errors import DatabaseBusy, DatabaseUnreachable, DatabaseUnusable, NotMoved
from app.store.moving import move
from app.store.opening import open_database
from app.store.schema import REVISIONS, metadata
from app.store.sqlite_engine import newest_sqlite
from app.store.verification import verify_database
from tests.databases import command, empty_database, postgres_only
from tests.docs.blocks import blocks_of
from tests.store.conftest import Clock, Scene
from tests.store.everything import RESUME_POINT, all_of, damage_some, fill
from tests.store.test_database import database_of_0001

KINDS = ["file", pytest.param("server", marks=postgres_only)]
MANY_BYTES = 40 * 1024 * 1024
MOST_BYTES = 28 * 1024 * 1024
"""Four chunks at each end, each as the driver has it and as we do: PostgreSQL's driver gets text, of twice the size."""

KILLED = """
import os, signal, sys
from app.store.moving import move

def tell(what, share):
    if what.startswith(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

move(sys.argv[1], sys.argv[2], tell)
"""


def opened(url: str) -> Scene:
    clock = Clock()
    return Scene(open_database(url, clock=clock), clock, url)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Scene]:
    """An SQLite file, whichever database the other tests are on."""
    scene = opened(f"sqlite:///{tmp_path / 'origin.db'}")
    yield scene
    scene.database.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file with some of everything, and the ids that there are."""
    path = tmp_path_factory.mktemp("filled") / "origin.db"
    scene = opened(f"sqlite:///{path}")
    with closing(scene.database):
        return path, fill(scene)


@pytest.fixture
def full(filled: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[Scene]:
    """As `origin`, with some of everything."""
    shutil.copy(filled[0], tmp_path / "origin.db")
    scene = opened(f"sqlite:///{tmp_path / 'origin.db'}")
    yield scene
    scene.database.close()


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without a table."""
    return empty_database(tmp_path) if request.param == "server" else f"sqlite:///{tmp_path / 'moved.db'}"


def everything_at(url: str) -> dict[str, Any]:
    scene = opened(url)
    with closing(scene.database):
        return all_of(scene)


def moved(scene: Scene, target: str) -> moving.Moved:
    scene.database.close()
    return move(scene.url, target)


def is_untouched(target: str) -> bool:
    """Whether there is no table, and no file."""
    if target.startswith("sqlite"):
        return not Path(target.removeprefix("sqlite:///")).exists()
    engine = create_engine(target)
    tables = inspect(engine).get_table_names()
    engine.dispose()
    return tables == []


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_what_was_moved_there_and_back_is_what_there_was_and_the_origin_too(
    full: Scene, target: str, tmp_path: Path
) -> None:
    known, unknown = damage_some(full)
    before = all_of(full)
    there = moved(full, target)
    assert there.rows == {name: len(rows) for name, rows in before.items() if name != "counted"}
    assert (there.contents.quarantined, there.damaged) == ((known,), (f"checkpoint {unknown}",))
    assert before["counted"]["events"] > len(before["events"]), "ids of rows that are gone count"
    back = move(target, str(tmp_path / "back.db"))
    assert (back.rows, back.damaged) == (there.rows, there.damaged)
    for url in (target, f"sqlite:///{tmp_path}/back.db", full.url):
        assert everything_at(url) == before


def test_a_file_that_was_moved_to_is_like_one_that_a_service_made(full: Scene, tmp_path: Path) -> None:
    moved(full, f"sqlite:///{tmp_path}/moved.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved.db", "origin.db"]
    assert (tmp_path / "moved.db").stat().st_mode & 0o777 == 0o600, "it holds keys"
    verify_database(f"sqlite:///{tmp_path}/moved.db")
    with newest_sqlite().connect(tmp_path / "moved.db") as file:
        assert file.execute("PRAGMA auto_vacuum").fetchone() == (2,), "which gives space back"
    file.close()


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_a_worker_goes_on_where_the_job_was_and_no_id_is_given_again(
    full: Scene, target: str, filled: tuple[Path, dict[str, str]]
) -> None:
    made = filled[1]
    highest = all_of(full)["counted"]
    moved(full, target)
    there = opened(target)
    with closing(there.database) as database:
        now = [0.0]
        watch = claims.StaleWatch(database, 13, lambda: now[0])
        for now[0] in range(0, 40, 4):
            if taken := watch.release_stale():
                break
        assert taken == [made["running"]], "its worker is gone"
        jobs.resume_job(database, made["paused"])
        claimed = {(claim := there.claim("worker-2")).job.id: claim for _ in range(3)}
        for name in ("running", "paused"):
            assert claims.read_resume_point(database, claimed[made[name]]) == RESUME_POINT
        there.save(claimed[made["running"]], 3, val_loss=1.0)
        assert there.job(name="again", idempotency=("key \u00e9", "1" * 64)).id == made["queued"]
        there.corpus("new", "a text that is new\n")
        there.job(name="new")
        after = all_of(there)["counted"]
        assert all(after[name] > highest[name] for name in ("corpora", "jobs", "events", "checkpoints"))


@pytest.mark.parametrize("point", ["copying blob_chunks", "copying checkpoints", "comparing blob_chunks"])
@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_a_move_that_is_killed_has_moved_nothing_and_the_next_one_moves_all(
    full: Scene, target: str, point: str
) -> None:
    before = all_of(full)
    full.database.close()
    killed = subprocess.run([sys.executable, "-c", KILLED, full.url, target, point], check=False, timeout=60)
    assert killed.returncode == -9
    assert is_untouched(target)
    move(full.url, target)
    assert everything_at(target) == everything_at(full.url) == before


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
def test_a_server_that_breaks_off_has_nothing_of_it(full: Scene, target: str, caplog: Any) -> None:
    full.database.close()
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{make_url(target).database}'"

    def tell(what: str, _share: float) -> None:
        if what == "comparing jobs":
            command(target, f"{end} AND pid <> pg_backend_pid()")

    with pytest.raises(DatabaseUnreachable):
        move(full.url, target, tell)
    assert caplog.text == "", "the one line of the error says it all"
    assert is_untouched(target)


def test_nobody_opens_a_file_while_it_is_moved(origin: Scene, tmp_path: Path) -> None:
    origin.job()
    origin.database.close()
    refused = []

    def tell(what: str, _share: float) -> None:
        with closing(newest_sqlite().connect(tmp_path / "origin.db", timeout=0)) as other:
            try:
                other.execute("SELECT count(*) FROM jobs")
            except newest_sqlite().OperationalError as error:
                refused.append(str(error))

    move(origin.url, str(tmp_path / "moved.db"), tell)
    assert refused
    assert set(refused) == {"database is locked"}


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
def test_no_service_starts_on_a_server_while_it_is_moved_to_or_from(
    origin: Scene, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.job()
    origin.database.close()
    told: list[str] = []

    def tell(what: str, _share: float) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(postgres_engine, "SESSION", "SELECT set_config('lock_timeout', '50ms', false)")
            if what.endswith(" jobs"):
                with pytest.raises(DatabaseBusy):
                    open_database(target).close()
                told.append(what)

    move(origin.url, target, tell)
    move(target, str(tmp_path / "back.db"), tell)
    assert told == ["copying jobs", "comparing jobs"] * 2


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
@pytest.mark.parametrize("end", ["from", "to"])
def test_who_waits_for_the_end_of_a_move_to_use_the_database_undoes_it(
    origin: Scene, target: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_ends, "GIVEN_UP_SECONDS", 0.2)
    origin.job()
    origin.database.close()
    ends = (origin.url, target)
    if end == "from":
        move(*ends)
        ends = (target, f"sqlite:///{tmp_path}/back.db")
    threads = ThreadPoolExecutor()
    late: list[Future[None]] = []

    def start_and_store() -> None:
        there = opened(target)
        with closing(there.database):
            there.corpus()

    def tell(what: str, _share: float) -> None:
        if what == "comparing jobs":
            late.append(threads.submit(start_and_store))

    with threads, pytest.raises(NotMoved, match=r"in use by session \d+ \(charsmith\): stop the service"):
        move(*ends, tell)
    assert is_untouched(ends[1]) or end == "to"
    [started] = late
    started.result()
    there = everything_at(target)
    assert (len(there["corpora"]), len(there["jobs"])) == (1, 1 if end == "from" else 0), "it was not moved"


@pytest.mark.parametrize("used", ["open", "writing"])
def test_a_file_that_is_used_is_not_moved(origin: Scene, tmp_path: Path, used: str, monkeypatch: Any) -> None:
    hold = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "origin.db"), used], stdout=subprocess.PIPE, text=True
    )
    origin.database.close()
    try:
        assert hold.stdout is not None
        assert hold.stdout.readline() == "open\n"
        with pytest.raises(NotMoved, match=f"in use by process {hold.pid}: stop the service"):
            move(origin.url, str(tmp_path / "moved.db"))
        monkeypatch.setattr(moving_ends, "processes_with", lambda _: [])  # another container's
        with pytest.raises(NotMoved, match="in use by another process: stop the service"):
            move(origin.url, str(tmp_path / "moved.db"))
    finally:
        hold.kill()
        hold.communicate()
    move(origin.url, str(tmp_path / "moved.db"))


HOLD = """
import sys, time
from app.store.sqlite_engine import newest_sqlite

connection = newest_sqlite().connect(sys.argv[1], isolation_level=None)
connection.execute("SELECT count(*) FROM jobs").fetchone()
if sys.argv[2] == "writing":
    connection.execute("BEGIN IMMEDIATE")
print("open", flush=True)
time.sleep(60)
"""


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
@pytest.mark.parametrize("name", ["charsmith", "of-mine"])
def test_a_server_that_is_used_by_whatever_name_is_neither_moved_nor_moved_to(
    origin: Scene, target: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_ends, "GONE_SECONDS", 0.2)
    origin.database.close()
    told = rf"in use by session \d+ \({name}\): stop the service"
    with closing(open_database(f"{target}?application_name={name}")):
        with pytest.raises(NotMoved, match=told):
            move(target, str(tmp_path / "moved.db"))
        with pytest.raises(NotMoved, match=told):
            move(origin.url, target)


@pytest.fixture
def role(target: str) -> Iterator[str]:
    """Who may use the database, and is told of other roles' sessions no more than that they are there."""
    name = f"charsmith_test_{secrets.token_hex(6)}"
    command(target, f"CREATE ROLE {name}", f"GRANT CREATE ON SCHEMA public TO {name}")
    yield name
    command(target, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
def test_sessions_of_another_role_count_for_one_without_privileges_too(
    origin: Scene, target: str, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_ends, "GONE_SECONDS", 0.2)
    origin.job()
    unprivileged = f"{target}?options=-crole%3D{role}"
    moved(origin, unprivileged)
    with closing(open_database(target)), pytest.raises(NotMoved, match=r"in use by session \d+ \(charsmith\)"):
        move(unprivileged, str(tmp_path / "back.db"))
    move(unprivileged, str(tmp_path / "back.db"))


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_what_is_not_empty_is_not_moved_to_and_told(origin: Scene, target: str) -> None:
    there = opened(target)
    there.corpus()
    there.database.close()
    before = everything_at(target)
    with pytest.raises(
        NotMoved, match=r"exists: name a file|not empty, it has rows: blob_chunks 1, blobs 1, corpora 1"
    ):
        moved(origin, target)
    assert everything_at(target) == before


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
def test_tables_without_a_row_are_empty_and_their_counters_go_on(origin: Scene, target: str) -> None:
    there = opened(target)
    for name in ("first", "second"):
        there.job(name=name)
    given = all_of(there)["counted"]
    there.database.close()
    command(target, *(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)))
    origin.corpus()
    moved(origin, target)
    assert everything_at(target)["counted"]["jobs"] == given["jobs"] == 2


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
def test_another_programs_database_is_not_moved_to(origin: Scene, target: str) -> None:
    command(target, "CREATE TABLE bookmarks (id int)")
    with pytest.raises(DatabaseUnusable, match="bookmarks"):
        moved(origin, target)


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
def test_a_database_by_another_name_is_the_same(origin: Scene, target: str) -> None:
    moved(origin, target)
    here, there = make_url(target), make_url(target).set(host="localhost", port=make_url(target).port or 5432)
    with pytest.raises(NotMoved, match="is the database itself"):
        move(here.render_as_string(hide_password=False), there.render_as_string(hide_password=False))


def test_what_cannot_be_moved_is_told(origin: Scene, tmp_path: Path) -> None:
    to = str(tmp_path / "moved.db")
    old = database_of_0001(tmp_path / "old.db", "job_" + "a" * 26)
    with pytest.raises(NotMoved, match=f"has schema 0001, not {REVISIONS[-1]}: a start of the service migrates it"):
        move(old, to)
    with pytest.raises(NotMoved, match="is the database itself"):
        moved(origin, str(tmp_path / "origin.db"))
    with pytest.raises(DatabaseUnusable, match="there is no database"):
        move(str(tmp_path / "none.db"), to)
    (tmp_path / "no.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseUnusable, match="not a database"):
        move(str(tmp_path / "no.db"), to)
    (tmp_path / "nothing.db").touch()
    with pytest.raises(DatabaseUnusable, match="there is nothing in"):
        move(str(tmp_path / "nothing.db"), to)
    with pytest.raises(DatabaseUnusable, match="is a folder"):
        move(str(tmp_path), to)
    with pytest.raises(NotMoved, match=r"there is no folder .*nowhere"):
        move(origin.url, str(tmp_path / "nowhere" / "moved.db"))
    for misspelt in ("postgresql+psycopg//me:secret@127.0.0.1/db", "postgres:secret@127.0.0.1/db"):
        with pytest.raises(DatabaseUnusable, match="not a database URL") as told:
            move(origin.url, misspelt)
        assert "secret" not in str(told.value)
    Path(f"{to}-wal").touch()
    with pytest.raises(NotMoved, match=r"moved\.db-wal exists"):
        move(origin.url, to)
    assert not Path(to).exists()


BROKEN = {
    "a row of jobs cannot be read: it is damaged: text in it is not UTF-8": "SET name = CAST(x'ff' AS TEXT)",
    "a row of jobs cannot be read: Expecting value": "SET progress = '?'",
    "a row of jobs cannot be read: Couldn't parse datetime|a row of jobs cannot be read: Invalid isoformat": (
        "SET created_at = 'today'"
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_cannot_be_read_is_told_by_its_table(origin: Scene, tmp_path: Path, message: str) -> None:
    origin.job()
    with origin.database.write() as connection:
        connection.execute(text(f"UPDATE jobs {BROKEN[message]}"))
    with pytest.raises(NotMoved, match=message):
        moved(origin, str(tmp_path / "moved.db"))
    assert is_untouched(f"sqlite:///{tmp_path}/moved.db")


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a\0b"}, "jobs {}: NUL in name"),
        ({"metadata": {"note": ["a\0b"]}}, "jobs {}: NUL in metadata"),
        ({"progress": {"a\0b": 1}}, "jobs {}: NUL in progress"),
        ({"corpus_name": "c" * 65}, "jobs {}: value too long for type character varying"),
        ({"new_characters": 2**31}, "jobs {}: integer out of range"),
    ],
)
def test_what_the_server_does_not_hold_is_told_by_its_row(
    origin: Scene, target: str, values: dict[str, Any], message: str
) -> None:
    others = [origin.job(name=f"other-{n}") for n in range(3)]
    with origin.database.write() as connection:
        table = metadata.tables["jobs"]
        connection.execute(update(table).where(table.c.id == others[1].id).values(**values))
    name, what = message.format(others[1].id).split(": ")
    with pytest.raises(NotMoved, match=f"^{name} cannot be stored.*{what}"):
        moved(origin, target)
    assert is_untouched(target)


def spoiling(where: str, spoil: Callable[[list[dict[str, Any]]], None]) -> Callable[..., None]:
    """As the move inserts rows, but for one table, whose first batch is spoiled on the way."""
    spoiled = []

    def insert_rows(new: Any, table: Table, rows: list[Any]) -> None:
        values = [dict(row._mapping) for row in rows]
        if table.name == where and not spoiled:
            spoil(values)
            spoiled.append(where)
        if values:
            new.execute(insert(table), values)

    return insert_rows


SPOILED = [
    ("jobs", lambda rows: rows[0].update(name="other"), r"jobs job_\w+ is not the same after the move: name$"),
    ("metrics", lambda rows: rows.pop(), r"metrics job_\w+, \d+ is missing"),
    ("metrics", lambda rows: rows.append(rows[-1] | {"step": 9999}), r"metrics job_\w+, 9999 is new"),
    ("workers", lambda rows: rows.clear(), "workers worker-1 is missing"),
    ("events", lambda rows: rows[0].update(data={}), r"events 1 is not the same after the move: data$"),
    ("blob_chunks", lambda rows: rows[0].update(data=b"1"), r"blob_chunks blob_\w+, 0 is not the same .*: data$"),
    ("blob_chunks", lambda rows: rows.pop(), r"blob_chunks blob_\w+, \d is missing"),
]


@pytest.mark.parametrize(("where", "spoil", "message"), SPOILED)
@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_what_came_over_as_something_else_undoes_the_move(
    full: Scene, target: str, where: str, spoil: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_insert", spoiling(where, spoil))
    with pytest.raises(NotMoved, match=message):
        moved(full, target)
    assert is_untouched(target)


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_counters_that_would_begin_anew_undo_the_move(full: Scene, target: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(moving, "give_only_above", lambda *_: None)
    with pytest.raises(NotMoved, match=r"corpora|jobs.* would give numbers again"):
        moved(full, target)
    assert is_untouched(target)


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_memory_stays_at_a_few_chunks(origin: Scene, target: str) -> None:
    blobs.write_blob(origin.database, (bytes([n]) * 1024 * 1024 for n in range(MANY_BYTES // (1024 * 1024))))
    tracemalloc.start()
    try:
        moved(origin, target)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def test_the_command_tells_what_it_moved_and_what_was_damaged(full: Scene, tmp_path: Path) -> None:
    known, unknown = damage_some(full)
    full.database.close()
    told = CliRunner().invoke(cli, ["migrate-database", full.url, str(tmp_path / "a.db"), "--json"])
    document = json.loads(told.stdout)
    assert (told.exit_code, document["damaged"]) == (0, [f"checkpoint {unknown}"])
    assert document["rows"]["models"] == document["contents"]["models"] == 5
    assert told.stderr == f"damaged before, and moved as it is: checkpoint {unknown}\n"
    told = CliRunner().invoke(cli, ["migrate-database", full.url, str(tmp_path / "b.db")])
    assert told.stdout.startswith(f"moved {tmp_path}/origin.db to {tmp_path}/b.db: corpora 3, jobs 7, models 5")
    assert known in told.stdout


def test_the_command_says_in_a_line_why_not_and_never_a_password(origin: Scene, tmp_path: Path) -> None:
    origin.database.close()
    for secret in ("postgresql+psycopg://me:hunter2@127.0.0.1:9/x", "postgresql://127.0.0.1:9/x?password=hunter2"):
        for ends in ((origin.url, secret), (secret, origin.url), (secret, secret)):
            told = CliRunner().invoke(cli, ["migrate-database", *ends])
            assert told.exit_code == 1
            assert told.stderr.startswith("charsmith: ")
            assert "hunter2" not in told.output


@postgres_only
@pytest.mark.parametrize("target", ["server"], indirect=True)
def test_the_command_of_the_page_moves_a_file_to_a_server(full: Scene, target: str, tmp_path: Path) -> None:
    before = all_of(full)
    full.database.close()
    (tmp_path / "charsmith-data").mkdir()
    Path(full.url.removeprefix("sqlite:///")).rename(tmp_path / "charsmith-data" / "charsmith.db")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    [block] = [each.text for each in blocks_of("docs/operation.md", "sh") if "migrate-database" in each.text]
    there = "postgresql+psycopg://charsmith@db.example/charsmith"
    assert there in block
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHARSMITH_")}
    subprocess.run(
        ["sh", "-e"], input=block.replace(there, target), cwd=tmp_path, env=environment, text=True, check=True
    )
    assert everything_at(target) == before
