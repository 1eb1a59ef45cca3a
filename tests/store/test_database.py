"""Opening a database: what is set, what is migrated, what is refused and left alone."""

import contextlib
import logging
import multiprocessing
import random
import sqlite3
import subprocess
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, insert, inspect, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.store import migrate
from app.store.database import Database
from app.store.errors import DatabaseBusy, DatabaseFailed, DatabaseUnusable, DiskFull, SchemaTooNew, StoreError
from app.store.events import append_event, events_after
from app.store.jobs import cancel_job, delete_job, get_job
from app.store.metrics import read_metrics
from app.store.opening import open_database
from app.store.schema import REVISIONS, metadata, workers
from app.store.sqlite_engine import newest_sqlite, wal_is_safe
from app.store.workers import announce, list_workers
from tests.databases import empty_database, sqlite_only

OLD_SQLITE = SimpleNamespace(
    **{name: getattr(sqlite3, name) for name in dir(sqlite3) if not name.startswith("__")}
    | {"sqlite_version_info": (3, 51, 2), "sqlite_version": "3.51.2"}
)


def pragma(database: Database, name: str) -> Any:
    with database.read() as connection:
        return connection.execute(text(f"PRAGMA {name}")).scalar()


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 51, 3), True),
        ((3, 53, 4), True),
        ((4, 0, 0), True),
        ((3, 51, 2), False),
        ((3, 51, 0), False),
        ((3, 50, 7), True),
        ((3, 50, 6), False),
        ((3, 44, 6), True),
        ((3, 44, 5), False),
        ((3, 45, 0), False),
        ((3, 40, 1), False),
    ],
)
def test_only_repaired_versions_of_sqlite_may_use_a_write_ahead_log(version: tuple[int, ...], safe: bool) -> None:
    assert wal_is_safe(version) is safe


@sqlite_only
def test_every_connection_is_durable_and_checks_foreign_keys(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/new/folder/x.db")
    expected = "wal" if wal_is_safe(newest_sqlite().sqlite_version_info) else "delete"
    assert pragma(database, "journal_mode") == expected
    assert pragma(database, "synchronous") == 3
    assert pragma(database, "foreign_keys") == 1
    assert pragma(database, "busy_timeout") == 15_000
    assert pragma(database, "auto_vacuum") == 2
    database.close()


@sqlite_only
def test_a_sqlite_that_loses_commits_in_wal_mode_gets_the_rollback_journal_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = open_database(f"sqlite:///{tmp_path}/x.db", sqlite_module=OLD_SQLITE)  # type: ignore[arg-type]
    assert pragma(database, "journal_mode") == "delete"
    assert pragma(database, "auto_vacuum") == 2
    assert "3.51.2 can lose commits in WAL mode" in caplog.text
    with database.write() as connection:
        connection.execute(text("DELETE FROM workers"))
    database.close()


@sqlite_only
def test_the_standard_library_does_where_no_other_sqlite_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pysqlite3", None)
    assert newest_sqlite() is sqlite3
    open_database(f"sqlite:///{tmp_path}/x.db").close()


@sqlite_only
def test_a_wrong_answer_to_journal_mode_is_not_lived_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sqlite_engine._journal_mode", lambda *_: "memory")
    with pytest.raises(DatabaseUnusable, match="journal_mode 'memory'"):
        open_database(f"sqlite:///{tmp_path}/x.db")


def test_migrations_and_tables_in_code_are_the_same(scene: Any) -> None:
    with scene.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": metadata})
        assert compare_metadata(context, metadata) == []


@sqlite_only
def test_migrations_repeat_every_check_of_the_tables_in_code(scene: Any, tmp_path: Path) -> None:
    created = create_engine(f"sqlite:///{tmp_path}/created.db", module=newest_sqlite())
    metadata.create_all(created)
    with created.connect() as ours, scene.database.read() as migrated:
        assert _definitions(ours) == _definitions(migrated)
    created.dispose()


def _definitions(connection: Any) -> dict[str, list[str]]:
    query = text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'")
    return {name: _parts(sql) for name, sql in connection.execute(query) if name != "sqlite_sequence"}


def _parts(sql: str) -> list[str]:
    """Columns and constraints, in whatever order and layout: a migration adds them at the end, and renames tables."""
    head, _, body = " ".join(sql.replace('"', "").split()).partition("(")
    depth, parts = 0, [""]
    for character in body.rpartition(")")[0]:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [head.strip(), *sorted(part.strip() for part in parts), body.rpartition(")")[2].strip()]


def test_the_code_knows_exactly_the_revisions_that_there_are() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == REVISIONS


OF_0001 = """
INSERT INTO blobs (id, stage, bytes, sha256, touched_at) VALUES ('b', 'kept', 4, '{hash}', '{time}');
INSERT INTO corpora (id, name, bytes, characters, vocabulary_size, sha256, preview, created_at, blob_id)
    VALUES ('corpus_a', 'plays', 4, 4, 2, '{hash}', 'abab', '{time}', 'b');
INSERT INTO jobs (id, name, status, corpus_id, corpus_name, model, training, progress, attempt, heartbeat, crashes,
        cancel_requested, pause_requested, created_at)
    VALUES ('{job}', 'poet', 'queued', 'corpus_a', 'plays', '{{"cell": "gru"}}', '{{"steps": 9}}', '{{"step": 4}}',
        1, 1, 0, 0, 0, '{time}');
INSERT INTO metrics (job_id, step, train_loss) VALUES ('{job}', 2, 3.0), ('{job}', 4, 2.5);
INSERT INTO events (id, job_id, type, data, created_at) VALUES
    (3, '{job}', 'status', '{{"status": "queued"}}', '{time}'), (7, '{job}', 'sample', '{{"text": "ab"}}', '{time}'),
    (9, '{job}', 'sample', '{{}}', '{time}');
DELETE FROM events WHERE id = 9
"""


def database_of_0001(path: Path, job: str) -> str:
    """The address of a database as the first version left it, with a job that waits to go on."""
    url = f"sqlite:///{path}"
    engine = create_engine(url, module=newest_sqlite())
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    rows = OF_0001.format(hash="0" * 64, time="2026-01-01 00:00:00.000000", job=job)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in rows.split(";\n"):
            connection.exec_driver_sql(statement)
    engine.dispose()
    return url


@sqlite_only
@pytest.mark.parametrize("events_left", [True, False])
def test_a_database_of_the_first_version_is_upgraded_and_keeps_what_it_holds(tmp_path: Path, events_left: bool) -> None:
    job_id = "job_" + "a" * 26
    url = database_of_0001(tmp_path / "x.db", job_id)
    if not events_left:
        with sqlite3.connect(tmp_path / "x.db") as old:
            old.execute("DELETE FROM events")
        old.close()
    database = open_database(url)
    job = get_job(database, "poet")
    assert (job.id, job.corpus_name, job.progress, job.place) == (job_id, "plays", {"step": 4}, 1)
    assert job.training == {"average_decay": 0.0, "state_reset": 0.0, "steps": 9}, "it goes on as it began"
    assert [(row.step, row.train_loss, row.memory_bytes) for row in read_metrics(database, job_id)] == [
        (2, 3.0, None),
        (4, 2.5, None),
    ]
    told = [(event.id, event.type, event.data) for event in events_after(database, job_id, 0)]
    assert told == ([(3, "status", {"status": "queued"}), (7, "sample", {"text": "ab"})] if events_left else [])
    with database.write() as connection:
        append_event(connection, database.now(), job_id, "setback", {"step": 4})
    assert events_after(database, job_id, 7)[0].id == 10, "no id is ever given again"
    cancel_job(database, job_id)
    delete_job(database, job_id)
    assert events_after(database, job_id, 0) == [], "events go with their job"
    database.close()


@sqlite_only
def test_jobs_are_found_by_name_through_an_index(scene: Any) -> None:
    query = "EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE name = 'poet' ORDER BY sequence DESC LIMIT 1"
    with scene.database.read() as connection:
        plan = " ".join(row.detail for row in connection.execute(text(query)))
    assert "ix_jobs_name_sequence" in plan
    assert "TEMP B-TREE" not in plan


@sqlite_only
def test_opening_is_quiet_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from app.store.opening import open_database\n"
        f"for _ in range(2): open_database('sqlite:///{tmp_path}/x.db').close()\n"
        "print('alembic' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line for line in run.stderr.splitlines() if "can lose commits" not in line] == []
    assert run.stdout == "True\n"
    before = (tmp_path / "x.db").read_bytes()
    run = subprocess.run(
        [sys.executable, "-c", code.replace("range(2)", "range(1)")], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n", "nothing to migrate: Alembic need not even be imported"
    assert (tmp_path / "x.db").read_bytes() == before


def test_a_migration_that_breaks_off_leaves_nothing_and_the_next_start_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = migrate._upgrade

    def broken(connection: Any) -> None:
        whole(connection)
        raise KeyboardInterrupt

    url = empty_database(tmp_path)
    monkeypatch.setattr(migrate, "_upgrade", broken)
    with pytest.raises(KeyboardInterrupt):
        open_database(url)
    assert tables_of(url) == []
    monkeypatch.setattr(migrate, "_upgrade", whole)
    open_database(url).close()
    assert len(tables_of(url)) > 10


def tables_of(url: str) -> list[str]:
    engine = create_engine(url)
    try:
        return inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _open(url: str, start: Any, results: Any) -> None:
    logging.disable()
    upgrade = migrate._upgrade
    count = []
    migrate._upgrade = lambda connection: (count.append(1), upgrade(connection))  # type: ignore[assignment,func-returns-value]
    start.wait(60)
    try:
        open_database(url).close()
        results.put(len(count))
    except Exception as error:
        results.put(repr(error))
        raise


def test_processes_that_open_a_new_database_at_once_migrate_it_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(4), spawn.Queue()
    url = empty_database(tmp_path)
    children = [spawn.Process(target=_open, args=(url, start, results)) for _ in range(4)]
    for child in children:
        child.start()
    assert sorted(results.get(timeout=60) for _ in children) == [0, 0, 0, 1]
    for child in children:
        child.join(60)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    url, file = empty_database(tmp_path), tmp_path / "charsmith.db"
    database = open_database(url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    before = file.read_bytes() if file.exists() else b""
    with pytest.raises(SchemaTooNew, match=f"schema 9999, this version of Charsmith knows {REVISIONS[-1]}"):
        open_database(url)
    assert not file.exists() or file.read_bytes() == before


@sqlite_only
@pytest.mark.parametrize("size", [10, 99, 100, 511, 512, 4096, 100_000])
def test_random_bytes_are_refused_and_left_alone(tmp_path: Path, size: int) -> None:
    garbage = random.Random(size).randbytes(size)
    (tmp_path / "x.db").write_bytes(garbage)
    with pytest.raises(DatabaseUnusable):
        open_database(f"sqlite:///{tmp_path}/x.db")
    assert (tmp_path / "x.db").read_bytes() == garbage
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


@sqlite_only
def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE bookmarks (id)")
    connection.close()
    before = (tmp_path / "x.db").read_bytes()
    with pytest.raises(DatabaseUnusable, match="bookmarks"):
        open_database(f"sqlite:///{tmp_path}/x.db")
    assert (tmp_path / "x.db").read_bytes() == before


@sqlite_only
def test_a_database_whose_names_are_no_longer_text_is_called_damaged(tmp_path: Path) -> None:
    """SQLite quotes the bytes that it cannot make sense of, and the driver cannot decode its own error."""
    path = tmp_path / "x.db"
    open_database(f"sqlite:///{path}").close()
    content = path.read_bytes()
    damaged = content.replace(b"CREATE TABLE jobs", b"CREATE TABLE \xbf\xff \xbf")
    assert damaged != content
    path.write_bytes(damaged)
    with pytest.raises(DatabaseUnusable, match=r"cannot open the database .*x\.db: it is damaged: .*not UTF-8"):
        open_database(f"sqlite:///{path}")
    assert path.read_bytes() == damaged


@sqlite_only
def test_names_that_are_no_longer_text_are_damage_to_whoever_has_the_database_open(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    opened = open_database(f"sqlite:///{path}")
    opened._engine.dispose()  # the next connection looks at the schema anew
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE jobs", b"CREATE TABLE \xbf\xff \xbf"))
    for path_of_wal in tmp_path.glob("x.db-*"):
        path_of_wal.unlink()
    with pytest.raises(DatabaseFailed, match="not UTF-8"), opened.read():
        pass
    for call in (opened.commits, opened.give_back_space):
        with pytest.raises(DatabaseFailed, match="not UTF-8"):
            call()
    opened.close()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "nonsense",
        "sqlite:////proc/nowhere/x.db",
        "mysql://root@127.0.0.1/charsmith",
        "postgresql+psycopg2://postgres@127.0.0.1/charsmith",
        "postgresql://postgres@127.0.0.1:port/charsmith",
        "postgresql://nobody:secret@127.0.0.1:9/charsmith",
        "postgresql://nobody:very@secret@127.0.0.1/charsmith",
    ],
)
def test_an_address_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUnusable) as refused:
        open_database(url)
    assert "secret" not in str(refused.value)


def test_a_reading_transaction_cannot_write(scene: Any) -> None:
    with pytest.raises(StoreError, match=r"read-?only"), scene.database.read() as connection:
        connection.execute(text("DELETE FROM jobs"))


def test_a_writing_transaction_is_undone_by_any_exception(scene: Any) -> None:
    def write_and_break() -> None:
        with scene.database.write() as connection:
            now = scene.database.now()
            connection.execute(insert(workers).values(id="w", device="cpu", beats=1, started_at=now, seen_at=now))
            raise KeyboardInterrupt

    before = scene.dump()
    with pytest.raises(KeyboardInterrupt):
        write_and_break()
    assert scene.dump() == before


@sqlite_only
def test_a_wait_for_the_lock_that_is_too_long_has_a_name(scene: Any) -> None:
    impatient = open_database(scene.url)
    with impatient.read() as connection:  # its pool's only connection, which it hands out again
        connection.exec_driver_sql("PRAGMA busy_timeout=1")
    with scene.database.write(), pytest.raises(DatabaseBusy), impatient.write():
        pass
    impatient.close()


@sqlite_only
def test_a_full_disk_has_a_name(scene: Any) -> None:
    with scene.database.read() as connection:  # its pool's only connection, which it hands out again
        connection.exec_driver_sql("PRAGMA max_page_count=1")
    before = scene.dump()
    with pytest.raises(DiskFull):
        scene.corpus(text="too large " * 100_000)
    assert scene.dump()["corpora"] == before["corpora"] == []
    with scene.database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert scene.corpus(text="too large " * 100_000).bytes == 1_000_000


def overwrite(scene: Any) -> None:
    """Make every page but the first unreadable, as a dying disk does."""
    scene.database.close()
    path = Path(scene.url.removeprefix("sqlite:///"))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@sqlite_only
def test_a_damaged_file_has_a_name_whatever_is_asked(scene: Any) -> None:
    overwrite(scene)
    with pytest.raises(DatabaseFailed, match="malformed"), scene.database.read() as connection:
        connection.execute(text("SELECT * FROM jobs")).all()
    with pytest.raises(DatabaseFailed, match="malformed"):
        list_workers(scene.database)
    with pytest.raises(DatabaseFailed, match="malformed"):
        announce(scene.database, "worker-1", "cpu")


@sqlite_only
def test_a_file_that_is_no_database_any_more_has_a_name(scene: Any) -> None:
    scene.database.close()  # so that the next connection is a new one, whose first pragmas fail
    Path(scene.url.removeprefix("sqlite:///")).write_bytes(b"no database at all" * 1000)
    for use in (scene.database.read, scene.database.write):
        with pytest.raises(DatabaseFailed, match="not a database"), use():
            pass
    with pytest.raises(DatabaseFailed):
        scene.database.give_back_space()


@sqlite_only
@pytest.mark.parametrize("step", ["_vacuum_step", "raw_connection"])
def test_a_driver_used_directly_fails_with_a_name_too(scene: Any, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: Any) -> None:
        raise newest_sqlite().OperationalError("disk I/O error")

    scene.database.close()
    if step == "_vacuum_step":  # within a transaction, on a new connection, whose first pragmas fail
        monkeypatch.setattr("app.store.sqlite_engine._set_pragmas", fail)
    else:
        monkeypatch.setattr(scene.database._engine, "raw_connection", fail)
    with pytest.raises(DatabaseFailed, match="disk I/O error"):
        scene.database.give_back_space()


def test_waiting_for_a_connection_in_vain_has_a_name(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = scene.database._engine.pool
    monkeypatch.setattr(pool, "_timeout", 0.01)
    with contextlib.ExitStack() as busy:
        for _ in range(pool.size() + pool._max_overflow):
            busy.enter_context(scene.database.read())
        with pytest.raises(DatabaseBusy), scene.database.read():
            pass


def test_an_error_of_the_database_does_not_tell_what_a_statement_was_given(scene: Any) -> None:
    """It may be a piece of a text, and errors are logged."""
    error = ProgrammingError if scene.database.dialect == "postgresql" else DatabaseFailed
    with pytest.raises(error) as failed, scene.database.write() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:piece)"), {"piece": "to be, or not to be"})
    told = "".join(traceback.format_exception(failed.value))
    assert "INSERT INTO nowhere" in told
    assert "or not to be" not in told.replace('"to be, or not to be"})', "")


def test_our_own_mistakes_are_no_failures_of_the_database(scene: Any) -> None:
    with pytest.raises(IntegrityError), scene.database.write() as connection:
        connection.execute(text("INSERT INTO blobs (id) VALUES (NULL)"))
    with pytest.raises(ProgrammingError), scene.database.read() as connection:
        connection.exec_driver_sql("SELECT ?" if scene.database.dialect == "sqlite" else "SELECT %s", (1, 2))


def test_the_database_itself_refuses_what_breaks_an_invariant(scene: Any) -> None:
    job = scene.job()
    for broken in (
        "status = 'dancing'",
        "status = 'running'",
        "status = 'failed'",
        "status = 'succeeded'",
        "attempt = -1",
        "cancel_requested = true",
        "corpus_id = NULL",
        "corpus_id = 'corpus_x'",
        "worker = 'w'",
        "resume_step = 1",
        "name = ''",
    ):
        with pytest.raises(IntegrityError), scene.database.write() as connection:
            connection.execute(text(f"UPDATE jobs SET {broken} WHERE id = :id"), {"id": job.id})


def test_a_connection_in_use_is_closed_when_it_is_given_back_to_a_closed_database(tmp_path: Path) -> None:
    """A request whose client has left is still at work, say, when the service ends."""
    database = open_database(empty_database(tmp_path))
    with database.read() as connection:
        own = connection.connection.driver_connection
        assert own is not None
        database.close()
        list_workers(database)  # whoever comes late is served, too
    with pytest.raises(own_errors(database)):
        own.cursor().execute("SELECT 1")


def own_errors(database: Database) -> type[Exception]:
    return database._engine.dialect.loaded_dbapi.Error  # type: ignore[no-any-return]
