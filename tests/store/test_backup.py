"""A copy of everything while others write, and its way back: whole, or nothing has changed."""

import contextlib
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.store import backup as backup_file
from app.store import part_file, restore
from app.store.api_keys import Scope, create_key, list_keys, revoke_key
from app.store.backup import back_up
from app.store.errors import BackupRefused, Damaged, DatabaseUnusable
from app.store.opening import open_database
from app.store.part_file import PartFile, beside
from app.store.restore import restore as put_back
from app.store.schema import CHUNK_BYTES
from app.store.sqlite_engine import newest_sqlite
from app.store.sqlite_files import connect_to_file
from app.store.trained_models import quarantine
from app.store.verification import verify_database
from app.store.workers import announce
from tests.databases import sqlite_only
from tests.faults.power_loss_work import sqlite_for
from tests.store.conftest import Scene
from tests.store.test_database import database_of_0001

pytestmark = sqlite_only

OLD_SQLITE = sqlite_for("delete")
"""Of the same library as in use: two SQLites in one process drop each other's locks."""
HOLD = """
import sys, time
from app.store.sqlite_engine import newest_sqlite

connection = newest_sqlite().connect(sys.argv[1], isolation_level=None)
connection.execute("SELECT count(*) FROM jobs").fetchone()
print("open", flush=True)
time.sleep(60)
"""


@pytest.fixture
def full(scene: Scene) -> Scene:
    """A job that runs, with checkpoints and a resume point in two chunks."""
    claim = scene.running()
    scene.save(claim, 1, checkpoint=random.Random(1).randbytes(CHUNK_BYTES + 9), val_loss=2.0)
    scene.save(claim, 2, resume_point=random.Random(2).randbytes(CHUNK_BYTES + 9))
    return scene


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "kept.db"


def file_of(scene: Scene) -> Path:
    return Path(scene.url.removeprefix("sqlite:///"))


def dump_of(path: Path, tmp_path: Path) -> dict[str, list[Any]]:
    """What a file holds, by way of a copy: to open a database is to write to it."""
    copy = tmp_path / "opened.db"
    copy.write_bytes(path.read_bytes())
    database = open_database(f"sqlite:///{copy}")
    found = Scene(database, None, "").dump()  # type: ignore[arg-type]
    database.close()
    return found


def in_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def change(scene: Scene, *statements: str) -> None:
    with scene.database.write() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_a_backup_is_one_private_file_that_holds_everything(full: Scene, target: Path, tmp_path: Path) -> None:
    before = full.dump()
    contents = back_up(full.url, target)
    assert (contents.corpora, contents.jobs, contents.models, contents.checkpoints) == (1, 1, 1, 2)
    assert [path.name for path in target.parent.iterdir()] == ["kept.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600, "it holds the key that states are signed with"
    assert target.read_bytes()[18:20] == b"\1\1", "no write-ahead log belongs to it"
    assert dump_of(target, tmp_path) == before == full.dump()


def test_a_database_of_before_an_update_can_be_backed_up_and_restored(target: Path, tmp_path: Path) -> None:
    url = database_of_0001(tmp_path / "x.db", "job_" + "a" * 26)
    with newest_sqlite().connect(tmp_path / "x.db") as old:  # its text was made up, without bytes
        for table in ("metrics", "events", "jobs", "corpora", "blobs"):
            old.execute(f"DELETE FROM {table}")
    old.close()
    assert back_up(url, target).revision == "0001"
    put_back(f"sqlite:///{tmp_path}/new.db", target)
    open_database(f"sqlite:///{tmp_path}/new.db").close()


@contextlib.contextmanager
def constant_writer(url: str, **how: Any) -> Iterator[list[float]]:
    """Somebody who writes all the time: how long each write took, in seconds."""
    database, stop, took = open_database(url, **how), threading.Event(), [0.0]

    def write() -> None:
        while not stop.is_set():
            began = time.monotonic()
            announce(database, "busy", "cpu")
            took.append(time.monotonic() - began)
            time.sleep(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while len(took) < 10:
            time.sleep(0.01)
        yield took
    finally:
        stop.set()
        thread.join()
        database.close()


def test_it_comes_to_its_end_while_others_write_all_the_time(
    full: Scene, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_file, "STEP_PAGES", 4)
    slowed = backup_file._pages
    monkeypatch.setattr(backup_file, "_pages", lambda o, p, w: slowed(o, p, lambda n: (time.sleep(0.003), w(n))))
    with constant_writer(full.url) as took:
        before = len(took)
        back_up(full.url, target)
        assert len(took) > before + 50, "nobody waited for it"
        assert max(took) < 10


def rollback_journal(scene: Scene) -> None:
    scene.database.close()
    open_database(scene.url, sqlite_module=OLD_SQLITE).close()


def test_with_a_rollback_journal_writers_are_held_up_when_they_would_never_let_it_end(
    full: Scene, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollback_journal(full)
    monkeypatch.setattr(backup_file, "STEP_PAGES", 4)
    held: list[float | None] = []
    copy_held = backup_file._copy_held
    monkeypatch.setattr(
        backup_file, "_copy_held", lambda o, p, seconds: (held.append(seconds), copy_held(o, p, seconds))
    )
    with constant_writer(full.url, sqlite_module=OLD_SQLITE) as took:
        back_up(full.url, target)
        assert held == [backup_file.HOLD_SECONDS]
        assert max(took) < backup_file.HOLD_SECONDS
        monkeypatch.setattr(backup_file, "HOLD_SECONDS", 0.0)
        with pytest.raises(BackupRefused, match="stop the worker meanwhile"):
            back_up(full.url, target.with_name("other.db"))
    assert [path.name for path in target.parent.iterdir()] == ["kept.db"]


def test_with_a_rollback_journal_and_nobody_else_writers_could_come_in_between(full: Scene, target: Path) -> None:
    rollback_journal(full)
    assert back_up(full.url, target).checkpoints == 2


def test_the_locks_of_the_process_that_makes_it_stay(full: Scene, target: Path) -> None:
    full.dump()  # so that a connection is open, as it is between two requests
    before = locks(file_of(full))
    assert before, "which keep others from taking the file for unused"
    back_up(full.url, target)
    verify_database(full.url)
    assert locks(file_of(full)) == before


def locks(path: Path) -> list[str]:
    """The locks on a file, as the kernel tells them."""
    inode = f":{path.stat().st_ino} "
    return [line.split(":", 1)[1] for line in Path("/proc/locks").read_text().splitlines() if inode in line]


def test_a_file_that_is_there_is_replaced_only_by_force(full: Scene, target: Path, tmp_path: Path) -> None:
    target.write_bytes(b"precious")
    with pytest.raises(BackupRefused, match="exists; --force"):
        back_up(full.url, target)
    assert in_folder(target.parent) == {"kept.db": b"precious"}
    back_up(full.url, target, force=True)
    assert dump_of(target, tmp_path) == full.dump()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_the_database_itself_is_not_overwritten(full: Scene, suffix: str) -> None:
    before = full.dump()
    with pytest.raises(BackupRefused, match="belongs to the database itself"):
        back_up(full.url, Path(f"{file_of(full)}{suffix}"), force=True)
    assert full.dump() == before


def test_a_target_that_cannot_be_one_is_refused(full: Scene, target: Path) -> None:
    with pytest.raises(BackupRefused, match="is a folder"):
        back_up(full.url, target.parent, force=True)
    with pytest.raises(FileNotFoundError):
        back_up(full.url, target.parent / "nowhere" / "kept.db")
    Path(f"{target}-wal").write_bytes(b"of another database")
    with pytest.raises(BackupRefused, match="would be taken for a part of the backup"):
        back_up(full.url, target)


def test_there_must_be_a_database_of_ours_in_a_file(target: Path, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="there is no database"):
        back_up(f"sqlite:///{tmp_path}/none.db", target)
    with pytest.raises(DatabaseUnusable, match="postgresql"):
        back_up("postgresql+psycopg://me:secret@localhost/charsmith", target)
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE bookmarks (id)")
    with pytest.raises(DatabaseUnusable, match="bookmarks"):
        back_up(f"sqlite:///{tmp_path}/other.db", target)
    assert not (tmp_path / "none.db").exists()
    assert [*target.parent.iterdir()] == []


FLIP = "UPDATE blob_chunks SET data = zeroblob(length(data)) WHERE blob_id = (SELECT {} LIMIT 1)"
DAMAGES = {
    "corpus": FLIP.format("blob_id FROM corpora"),
    "checkpoint": FLIP.format("blob_id FROM checkpoints"),
    "resume point of job": FLIP.format("resume_blob_id FROM jobs"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_bytes_are_told_by_whose_they_are_and_the_old_backup_stays(
    full: Scene, target: Path, what: str
) -> None:
    back_up(full.url, target)
    before = in_folder(target.parent)
    change(full, DAMAGES[what])
    with pytest.raises(Damaged, match=f"{what} .*SHA-256"):
        back_up(full.url, target, force=True)
    with pytest.raises(Damaged, match=f"{what} .*SHA-256"):
        verify_database(full.url)
    assert in_folder(target.parent) == before


def test_missing_chunks_and_dangling_references_are_damage_too(full: Scene, target: Path) -> None:
    change(full, "DELETE FROM blob_chunks WHERE chunk_index = 1")
    with pytest.raises(Damaged, match="chunk 1 is missing"):
        back_up(full.url, target)
    file = newest_sqlite().connect(file_of(full), isolation_level=None)
    file.execute("UPDATE events SET job_id = 'job_x'")
    file.close()
    with pytest.raises(Damaged, match="of events names something that jobs does not have"):
        back_up(full.url, target)


def test_a_broken_page_is_damage(full: Scene, target: Path) -> None:
    full.database.close()
    with file_of(full).open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(Damaged, match=r"charsmith\.db is damaged"):
        back_up(full.url, target)
    assert [*target.parent.iterdir()] == []


def test_a_quarantined_checkpoint_is_told_and_no_obstacle(full: Scene, target: Path) -> None:
    with full.database.read() as connection:
        damaged = connection.execute(text("SELECT id, blob_id FROM checkpoints WHERE step = 2")).one()
    change(full, DAMAGES["checkpoint"].replace("FROM checkpoints", "FROM checkpoints WHERE step = 2"))
    quarantine(full.database, damaged)
    assert back_up(full.url, target).quarantined == (damaged.id,)


def test_only_one_at_a_time_writes_a_file_and_takes_over_what_a_killed_one_left(full: Scene, target: Path) -> None:
    with part_file.part_file(target), pytest.raises(BackupRefused, match="another process is writing"):
        back_up(full.url, target)
    Path(f"{target}.part").write_bytes(b"half" * 10_000)
    Path(f"{target}.part-journal").write_bytes(b"half" * 10_000)
    back_up(full.url, target)
    assert [path.name for path in target.parent.iterdir()] == ["kept.db"]


def test_a_database_can_be_verified_while_it_is_used(full: Scene) -> None:
    with constant_writer(full.url):
        assert verify_database(full.url).checkpoints == 2


def test_a_restored_backup_is_what_was_there_and_what_came_since_is_kept_aside(
    full: Scene, target: Path, tmp_path: Path
) -> None:
    back_up(full.url, target)
    backed_up = full.dump()
    full.corpus("later", "another text, which came later")
    later = full.dump()
    full.database.close()
    file_of(full).chmod(0o640)
    restored = put_back(full.url, target)
    assert dump_of(file_of(full), tmp_path) == backed_up
    assert restored.aside is not None
    assert restored.aside.name.startswith("charsmith.db.before-restore-2")
    assert dump_of(restored.aside, tmp_path) == later
    assert sorted(in_folder(tmp_path)) == ["charsmith.db", restored.aside.name, "opened.db"]
    assert stat.S_IMODE(file_of(full).stat().st_mode) == 0o640, "whoever could open it still can"


def test_a_revoked_key_stays_so_and_keys_are_asked_for_whatever_a_backup_says(full: Scene, target: Path) -> None:
    before = target.with_name("before.db")
    back_up(full.url, before)
    for name in ("laptop", "phone"):
        create_key(full.database, name, frozenset(Scope))
    back_up(full.url, target)
    revoke_key(full.database, "laptop")
    known = list_keys(full.database)
    for backup in (before, target):
        full.database.close()
        restored = put_back(full.url, backup)
        assert (restored.keys, restored.asks_for_keys, restored.keys_are_current) == (("phone",), True, True)
        with contextlib.closing(open_database(full.url)) as again:
            assert list_keys(again) == known


def test_keys_of_a_backup_are_told_where_those_of_before_cannot_be_read(full: Scene, target: Path) -> None:
    create_key(full.database, "laptop", frozenset(Scope))
    back_up(full.url, target)
    full.database.close()
    file_of(full).write_bytes(b"no database" * 1000)
    restored = put_back(full.url, target)
    assert (restored.keys, restored.keys_are_current) == (("laptop",), False)


def test_a_backup_is_restored_over_a_database_whose_names_are_no_longer_text(full: Scene, target: Path) -> None:
    back_up(full.url, target)
    full.database.close()
    path = Path(full.url.removeprefix("sqlite:///"))
    damaged = path.read_bytes().replace(b"CREATE TABLE jobs", b"CREATE TABLE \xbf\xff \xbf")
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    restored = put_back(full.url, target)
    assert not restored.keys_are_current
    assert restored.aside is not None
    assert restored.aside.read_bytes() == damaged
    open_database(full.url).close()


def test_a_backup_is_restored_where_there_was_nothing(full: Scene, target: Path, tmp_path: Path) -> None:
    back_up(full.url, target)
    path = tmp_path / "new" / "folder" / "charsmith.db"
    assert put_back(f"sqlite:///{path}", target).aside is None
    assert dump_of(path, tmp_path) == full.dump()


def test_what_a_killed_service_left_in_its_log_is_kept_aside_too(full: Scene, target: Path, tmp_path: Path) -> None:
    back_up(full.url, target)
    full.corpus("later", "another text, which came later")
    (tmp_path / "killed").mkdir()
    for suffix in ("", "-wal"):  # as they are, as kill -9 leaves them
        (tmp_path / "killed" / f"charsmith.db{suffix}").write_bytes(Path(f"{file_of(full)}{suffix}").read_bytes())
    assert (tmp_path / "killed" / "charsmith.db-wal").stat().st_size > 4096
    restored = put_back(f"sqlite:///{tmp_path}/killed/charsmith.db", target)
    assert restored.aside is not None
    assert len(dump_of(restored.aside, tmp_path)["corpora"]) == 2
    assert len(in_folder(tmp_path / "killed")) == 2


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_nothing_is_restored_while_a_process_has_the_database_open(
    full: Scene, target: Path, tmp_path: Path, journal: str
) -> None:
    back_up(full.url, target)
    full.database.close()
    if journal == "delete":
        rollback_journal(full)
    before = dump_of(file_of(full), tmp_path)
    user = subprocess.Popen([sys.executable, "-c", HOLD, str(file_of(full))], stdout=subprocess.PIPE)
    try:
        assert user.stdout is not None
        assert user.stdout.readline() == b"open\n"
        with pytest.raises(BackupRefused, match=f"in use by process {user.pid}"):
            put_back(full.url, target)
    finally:
        user.kill()
        user.wait()
        user.stdout.close()
    assert dump_of(file_of(full), tmp_path) == before
    assert put_back(full.url, target).aside is not None


def test_a_user_whom_proc_does_not_show_is_noticed_by_its_lock(
    full: Scene, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(full.url, target)
    monkeypatch.setattr(restore, "processes_with", lambda _: [])
    before = full.dump()
    with full.database.read(), pytest.raises(BackupRefused, match="in use by another process"):
        put_back(full.url, target)
    assert full.dump() == before


def unrestorable(kind: str, good: Path) -> None:
    """Make a file that is no backup of a good one."""
    content = bytearray(good.read_bytes())
    match kind:
        case "garbage":
            good.write_bytes(random.Random(1).randbytes(50_000))
        case "empty":
            good.write_bytes(b"")
        case "cut":
            good.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[-100_000] ^= 1
            good.write_bytes(content)
        case "missing":
            good.unlink()
        case "not all":
            Path(f"{good}-wal").write_bytes(b"the rest")
        case "another program's" | "newer":
            with contextlib.closing(newest_sqlite().connect(good, isolation_level=None)) as file:
                if kind == "newer":
                    file.execute("UPDATE alembic_version SET version_num = '9999'")
                else:
                    file.execute("DROP TABLE alembic_version")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("garbage", "kept.db cannot be restored: file is not a database"),
        ("empty", "kept.db cannot be restored: there is nothing in it"),
        ("cut", "kept.db"),
        ("flipped", "kept.db is damaged"),
        ("missing", "there is no file"),
        ("not all", "kept.db-wal belongs to it"),
        ("another program's", "kept.db cannot be restored: this database belongs to another program"),
        ("newer", "kept.db cannot be restored: the database has schema 9999"),
    ],
)
def test_a_file_that_is_no_whole_backup_of_ours_changes_nothing(
    full: Scene, target: Path, tmp_path: Path, kind: str, told: str
) -> None:
    back_up(full.url, target)
    full.database.close()
    unrestorable(kind, target)
    before, backup = in_folder(tmp_path), in_folder(target.parent)
    with pytest.raises((BackupRefused, DatabaseUnusable, Damaged), match=told):
        put_back(full.url, target)
    assert in_folder(tmp_path) == before
    assert in_folder(target.parent) == backup


def test_the_database_itself_is_no_backup_of_it(full: Scene) -> None:
    full.database.close()
    with pytest.raises(BackupRefused, match="is the database itself"):
        put_back(full.url, file_of(full))


def test_a_database_that_cannot_be_opened_any_more_is_replaced_and_kept(
    full: Scene, target: Path, tmp_path: Path
) -> None:
    back_up(full.url, target)
    backed_up = full.dump()
    full.database.close()
    file_of(full).write_bytes(b"no database at all" * 1000)
    Path(f"{file_of(full)}-wal").write_bytes(b"stale")
    restored = put_back(full.url, target)
    assert dump_of(file_of(full), tmp_path) == backed_up
    assert restored.aside is not None
    assert restored.aside.read_bytes() == b"no database at all" * 1000
    assert Path(f"{restored.aside}-wal").read_bytes() == b"stale"
    assert not Path(f"{file_of(full)}-wal").exists()


@pytest.mark.parametrize("broken", ["hardlink_to", "replace"])
def test_a_restore_that_breaks_off_leaves_the_database(
    full: Scene, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    back_up(full.url, target)
    full.corpus("later", "another text, which came later")
    later = full.dump()
    full.database.close()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            put_back(full.url, target)
    assert dump_of(file_of(full), tmp_path) == later
    assert file_of(full).stat().st_nlink == 1
    assert not list(file_of(full).parent.glob("*.before-restore-*"))


def test_a_log_without_its_database_is_not_replayed_into_the_restored_one(full: Scene, target: Path) -> None:
    back_up(full.url, target)
    file, kept = file_of(full), dump_of(target, target.parent)
    full.corpus("later", "another text, which came later")
    files = {suffix: beside(file, suffix).read_bytes() for suffix in ("-wal", "-shm")}
    full.database.close()
    file.unlink()
    for suffix, left in files.items():  # as a killed service leaves them
        beside(file, suffix).write_bytes(left)
    restored = put_back(full.url, target)
    assert restored.aside is None
    assert dump_of(file, target.parent) == kept
    assert [path.read_bytes() for path in file.parent.glob("*.before-restore-*-wal")] == [files["-wal"]]


def test_a_database_that_is_made_meanwhile_is_not_replaced(
    full: Scene, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(full.url, target)
    new = tmp_path / "new" / "charsmith.db"
    sync = restore.sync_folder

    def start_a_service(folder: Path) -> None:
        sync(folder)
        open_database(f"sqlite:///{new}").close()

    monkeypatch.setattr(restore, "sync_folder", start_a_service)
    with pytest.raises(BackupRefused, match="just been made by another process"):
        put_back(f"sqlite:///{new}", target)
    with contextlib.closing(open_database(f"sqlite:///{new}")) as theirs, theirs.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM corpora")).scalar_one() == 0
    assert not new.with_name(f"{new.name}.part").exists()


def test_the_old_database_stays_kept_where_only_the_last_sync_fails(
    full: Scene, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(full.url, target)
    full.database.close()

    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(part_file, "sync_folder", fail)
    with pytest.raises(OSError, match="Input/output"):
        put_back(full.url, target)
    assert len(list(file_of(full).parent.glob("*.before-restore-*Z"))) == 1
    with contextlib.closing(open_database(full.url)):
        pass


def test_a_part_file_of_another_user_or_with_another_name_is_left_alone(full: Scene, target: Path) -> None:
    precious, part = target.with_name("precious"), target.with_name(f"{target.name}.part")
    precious.write_text("precious")
    part.hardlink_to(precious)
    with pytest.raises(BackupRefused, match="another's file"):
        back_up(full.url, target)
    assert precious.read_text() == "precious"
    with pytest.raises(BackupRefused, match="is no file"):
        back_up(full.url, Path("/dev/null"), force=True)


@pytest.mark.parametrize("damaged", [True, False])
def test_keys_that_cannot_be_read_or_say_more_than_is_known_here_do_not_keep_a_backup_out(
    full: Scene, target: Path, damaged: bool
) -> None:
    create_key(full.database, "laptop", frozenset(Scope))
    back_up(full.url, target)
    revoke_key(full.database, "laptop")
    full.database.close()
    path = file_of(full)
    with contextlib.closing(connect_to_file(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'api_keys'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if not damaged:  # by a newer Charsmith
            connection.execute("ALTER TABLE api_keys ADD COLUMN note TEXT")
    if damaged:
        with path.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
    restored = put_back(full.url, target)
    assert restored.keys_are_current is not damaged
    assert restored.keys == (("laptop",) if damaged else ()), "a revocation is for good, where it can be read"


def test_a_file_that_comes_while_a_backup_is_made_is_not_overwritten(
    full: Scene, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PartFile.publish

    def late(self: PartFile, wanted: Path, **how: Any) -> None:
        wanted.write_bytes(b"somebody's")
        original(self, wanted, **how)

    monkeypatch.setattr(PartFile, "publish", late)
    with pytest.raises(BackupRefused, match="just been made by another process"):
        back_up(full.url, target)
    assert target.read_bytes() == b"somebody's"
