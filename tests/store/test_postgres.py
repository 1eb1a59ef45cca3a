"""What is PostgreSQL's own: opening it, what its errors are called, and transactions that are not alone."""

import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, make_url, select, text, update
from sqlalchemy.exc import IntegrityError

from app.store import blobs, claims, corpora, jobs, postgres_engine, trained_models
from app.store.api_keys import Scope, create_key, list_keys
from app.store.database import Database
from app.store.errors import (
    Conflict,
    DatabaseBusy,
    DatabaseFailed,
    DatabaseUnreachable,
    DatabaseUnusable,
    NotFound,
    QueueFull,
    StoreError,
)
from app.store.job_state import JobStatus
from app.store.opening import open_database, open_existing
from app.store.schema import CHUNK_BYTES, REVISIONS, metadata, models
from app.store.schema import jobs as job_rows
from tests.databases import command, empty_database, fresh_database, give_back, postgres_only
from tests.store.conftest import TEXT

pytestmark = postgres_only

ROUNDS = 25
"""Of two that do at once what must not go together: each time the one or the other comes first."""


def cut_off(url: str) -> None:
    """What a server does to its connections when it is started anew."""
    name = make_url(url).database
    here = "pid <> pg_backend_pid()"
    command(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND {here}")


@pytest.fixture
def empty(tmp_path: Path) -> str:
    return empty_database(tmp_path)


def test_what_is_committed_is_on_the_disk_whatever_the_server_does_by_default(empty: str) -> None:
    command(empty, f'ALTER DATABASE "{make_url(empty).database}" SET synchronous_commit = off')
    with closing(open_database(empty)) as database, database.write() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"


def test_times_are_told_in_utc_wherever_the_server_is(scene: Any) -> None:
    command(scene.url, f"ALTER DATABASE \"{make_url(scene.url).database}\" SET timezone = 'Asia/Kathmandu'")
    try:
        with closing(open_database(scene.url)) as database:
            job = jobs.get_job(database, scene.job().id)
    finally:
        command(scene.url, f'ALTER DATABASE "{make_url(scene.url).database}" RESET timezone')
    assert job.created_at == scene.clock()
    assert job.created_at.isoformat().endswith("+00:00")


def test_a_transaction_that_reads_sees_one_moment_and_one_that_writes_what_is_committed(scene: Any) -> None:
    count = select(job_rows.c.id)
    with scene.database.read() as reading, scene.database.write() as writing:
        assert reading.execute(count).all() == writing.execute(count).all() == []
        job = scene.job()
        assert reading.execute(count).all() == []
        assert writing.execute(count).scalars().all() == [job.id]


def test_migrations_make_the_tables_of_the_code(empty: str, tmp_path: Path) -> None:
    created = empty_database(tmp_path)
    engine = create_engine(created)
    metadata.create_all(engine)
    open_database(empty).close()
    assert definitions(empty) == definitions(created)
    engine.dispose()


def definitions(url: str) -> dict[str, Any]:
    """Columns, checks, keys and indexes of all tables but Alembic's own, whatever the order of columns."""
    engine = create_engine(url)
    look = inspect(engine)
    found = {}
    for table in look.get_table_names():
        if table != "alembic_version":
            columns = [{**each, "type": str(each["type"])} for each in look.get_columns(table)]
            found[table] = {
                "columns": sorted(columns, key=lambda column: column["name"]),
                "checks": sorted(look.get_check_constraints(table), key=str),
                "foreign": sorted(look.get_foreign_keys(table), key=str),
                "unique": sorted(look.get_unique_constraints(table), key=str),
                "indexes": sorted(look.get_indexes(table), key=str),
                "primary": look.get_pk_constraint(table),
            }
    engine.dispose()
    return found


def test_another_programs_database_is_refused_and_left_alone(empty: str) -> None:
    command(empty, "CREATE TABLE bookmarks (id int)")
    for opening in (open_database, open_existing):
        with pytest.raises(DatabaseUnusable):
            opening(empty)
    engine = create_engine(empty)
    assert inspect(engine).get_table_names() == ["bookmarks"]
    engine.dispose()


def test_a_look_creates_nothing(empty: str) -> None:
    with pytest.raises(DatabaseUnusable, match=f"schema None, not {REVISIONS[-1]}"):
        open_existing(empty)
    engine = create_engine(empty)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(empty: str, encoding: str) -> None:
    name = f"{make_url(empty).database}_other"
    command(empty, f'CREATE DATABASE "{name}" TEMPLATE template0 ENCODING {encoding} LOCALE "C"')
    try:
        with pytest.raises(DatabaseUnusable, match=f"has encoding {encoding}: make one with ENCODING 'UTF8'"):
            open_database(str(make_url(empty).set(database=name).render_as_string(hide_password=False)))
    finally:
        command(empty, f'DROP DATABASE "{name}" WITH (FORCE)')


def test_an_address_without_a_database_is_refused_before_the_server_takes_another(empty: str) -> None:
    with pytest.raises(DatabaseUnusable, match="ends with the database's name"):
        open_database(empty.rpartition("/")[0])


@pytest.mark.parametrize("to", ["nowhere", "nobody", "closed"])
def test_what_keeps_a_database_from_being_opened_is_told_without_the_password(empty: str, to: str) -> None:
    url = make_url(empty).set(password="hunter2")
    wrong = {
        "nowhere": url.set(database="nowhere"),
        "nobody": url.set(username="nobody"),
        "closed": url.set(host="127.0.0.1", port=9),
    }[to]
    with pytest.raises(DatabaseUnusable, match=f"cannot open the database {wrong.database}: .*") as refused:
        open_database(wrong.render_as_string(hide_password=False))
    assert "hunter2" not in str(refused.value)


def test_a_server_that_is_started_anew_breaks_off_what_runs_and_nothing_after_it(scene: Any) -> None:
    job = scene.job()
    before = scene.dump()

    def write_while_it_stops() -> None:
        with scene.database.write() as connection:
            connection.execute(update(job_rows).values(name="other"))
            cut_off(scene.url)
            connection.execute(select(job_rows))

    with pytest.raises(DatabaseUnreachable):
        write_while_it_stops()
    assert scene.dump() == before, "each connection that is handed out was tried before"
    assert jobs.cancel_job(scene.database, job.id).status is JobStatus.CANCELLED


def test_a_server_that_is_gone_has_a_name(scene: Any) -> None:
    engine = scene.database._engine
    engine.dispose()
    engine.url = engine.url.set(port=9)
    engine.pool._creator = lambda *_: engine.dialect.connect(host="127.0.0.1", port=9)
    for use in (scene.database.read, scene.database.write):
        with pytest.raises(DatabaseUnreachable, match="refused"), use():
            pass


@pytest.fixture
def impatient(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Another process, which waits for nobody."""
    monkeypatch.setattr("app.store.postgres_engine.SESSION", "SELECT set_config('lock_timeout', '50ms', false)")
    with closing(open_database(scene.url)) as database:
        yield database


def test_a_row_that_another_holds_for_too_long_has_a_name(scene: Any, impatient: Database) -> None:
    claim = scene.running()
    with scene.database.write() as connection:
        claims.held(connection, claim)
        with pytest.raises(DatabaseBusy):
            claims.renew(impatient, claim)
        other = scene.job(name="other")
        assert jobs.cancel_job(impatient, other.id).status is JobStatus.CANCELLED, "it holds one job"


def test_a_process_that_stands_still_within_a_transaction_holds_its_rows_for_less_than_a_lease(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "idle_in_transaction_session_timeout', '10s" in postgres_engine.SESSION
    claim = scene.running()
    quick = postgres_engine.SESSION.replace("'10s'", "'200ms'")
    monkeypatch.setattr("app.store.postgres_engine.SESSION", quick)
    with closing(open_database(scene.url)) as frozen:

        def freeze() -> None:
            with frozen.write() as connection:
                claims.held(connection, claim)
                time.sleep(0.6)
                connection.execute(select(job_rows))

        with pytest.raises((DatabaseBusy, DatabaseUnreachable)):
            freeze()
    assert claims.renew(scene.database, claim) is not None


NOTHING = object()


def both(first: Callable[[], object], second: Callable[[], object]) -> list[object]:
    """What two that begin at once give or raise, of the store's errors."""
    barrier, results = threading.Barrier(2), [NOTHING, NOTHING]

    def run(number: int, work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            results[number] = work()
        except Exception as error:  # noqa: BLE001 - raised by whoever waits
            results[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for result in results:
        assert result is not NOTHING, "they wait for each other"
        if isinstance(result, Exception) and not isinstance(result, StoreError):
            raise result
    return results


def test_a_corpus_that_is_deleted_while_a_job_is_queued_on_it_has_one_answer(scene: Any) -> None:
    for _ in range(ROUNDS):
        corpus = scene.corpus()
        queued, deleted = both(
            lambda key=corpus.id: scene.job(corpus_id=key),  # type: ignore[misc]
            lambda key=corpus.id: corpora.delete_corpus(scene.database, key),  # type: ignore[misc]
        )
        if isinstance(deleted, Conflict):
            jobs.cancel_job(scene.database, queued.id)  # type: ignore[attr-defined]
            corpora.delete_corpus(scene.database, corpus.id)
        else:
            assert deleted is None
            assert isinstance(queued, NotFound)


def test_a_model_that_is_deleted_while_a_job_starts_from_it_has_one_answer(scene: Any) -> None:
    for number in range(ROUNDS):
        claim = scene.running(name=f"model-{number}")
        scene.save(claim, 1)
        claims.finish(scene.database, claim, JobStatus.SUCCEEDED)
        queued, deleted = both(
            lambda key=f"model-{number}@1": scene.job(from_checkpoint=key),  # type: ignore[misc]
            lambda key=f"model-{number}": trained_models.delete_model(scene.database, key),  # type: ignore[misc]
        )
        if isinstance(deleted, Conflict):
            jobs.cancel_job(scene.database, queued.id)  # type: ignore[attr-defined]
        else:
            assert deleted is None
            assert isinstance(queued, NotFound)


def test_a_checkpoint_that_a_job_starts_from_is_not_retired_meanwhile(scene: Any) -> None:
    claim = scene.running(name="poet")
    for step in range(1, 7):
        scene.save(claim, step)
    for step in range(7, 7 + ROUNDS):
        oldest = min(each.step for each in trained_models.list_checkpoints(scene.database, "poet"))
        queued, _ = both(
            lambda key=f"poet@{oldest}": scene.job(from_checkpoint=key),  # type: ignore[misc]
            lambda at=step: scene.save(claim, at),  # type: ignore[misc]
        )
        kept = {each.step for each in trained_models.list_checkpoints(scene.database, "poet")}
        if isinstance(queued, NotFound):
            assert oldest not in kept
        else:
            assert oldest in kept
            jobs.cancel_job(scene.database, queued.id)  # type: ignore[attr-defined]


def test_a_cancelled_job_is_not_claimed_and_a_claimed_one_is_asked_to_end(scene: Any) -> None:
    for _ in range(ROUNDS):
        job = scene.job()
        claim, cancelled = both(
            lambda: claims.claim_next(scene.database, "worker"),
            lambda key=job.id: jobs.cancel_job(scene.database, key),  # type: ignore[misc]
        )
        if claim is None:
            assert cancelled.status is JobStatus.CANCELLED  # type: ignore[attr-defined]
        else:
            assert claims.renew(scene.database, claim).cancel  # type: ignore[arg-type]
            claims.release(scene.database, claim)  # type: ignore[arg-type]
        assert scene.status(job) == "cancelled"


def test_no_more_jobs_wait_than_may_however_many_come_at_once(scene: Any) -> None:
    corpus = scene.corpus()
    for _ in range(ROUNDS):
        queue = [lambda: scene.job(corpus_id=corpus.id, queue_limit=1)] * 2
        results = both(*queue)
        assert sorted(isinstance(each, QueueFull) for each in results) == [False, True]
        [job] = [each for each in results if not isinstance(each, QueueFull)]
        jobs.cancel_job(scene.database, job.id)  # type: ignore[attr-defined]


def test_one_key_of_a_name_and_one_job_of_an_idempotency_key_come_of_two_requests(scene: Any) -> None:
    corpus = scene.corpus()
    for number in range(ROUNDS):
        results = both(*[lambda name=f"k-{number}": create_key(scene.database, name, frozenset({Scope.READ}))] * 2)
        assert sorted(isinstance(each, Conflict) for each in results) == [False, True]
        same = (f"key-{number}", "0" * 64)
        first, second = both(*[lambda key=same: scene.job(corpus_id=corpus.id, idempotency=key)] * 2)
        assert first.id == second.id  # type: ignore[attr-defined]
    assert len(list_keys(scene.database)) == len(jobs.list_jobs(scene.database, 100).data) == ROUNDS


def test_a_corpus_that_is_uploaded_and_deleted_at_once_is_there_or_not(scene: Any) -> None:
    for _ in range(ROUNDS):
        corpus = scene.corpus()
        again, deleted = both(
            lambda: corpora.add_corpus(scene.database, [TEXT.encode()], "again"),
            lambda key=corpus.id: corpora.delete_corpus(scene.database, key),  # type: ignore[misc]
        )
        assert deleted is None
        if again.is_new:  # type: ignore[attr-defined]
            assert b"".join(corpora.read_corpus(scene.database, again.corpus)) == TEXT.encode()  # type: ignore[attr-defined]
            corpora.delete_corpus(scene.database, again.corpus.id)  # type: ignore[attr-defined]
        assert blobs.sweep(scene.database) == 0
        assert scene.dump()["corpora"] == []


def test_a_checkpoint_is_quarantined_while_its_job_stores_others(scene: Any) -> None:
    """Both mark the best one, of the same rows."""
    claim = scene.running(name="poet")
    scene.save(claim, 1, val_loss=2.0)
    for step in range(2, 2 + ROUNDS):
        best = trained_models.find_checkpoint(scene.database, "poet")[1]
        quarantined, saved = both(
            lambda bad=best: trained_models.quarantine(scene.database, bad),  # type: ignore[misc]
            lambda at=step: scene.save(claim, at, val_loss=2.0 - at / 100),  # type: ignore[misc]
        )
        assert quarantined is True
        assert saved is not None
        marked = [each for each in trained_models.list_checkpoints(scene.database, "poet") if each.best]
        assert [each.step for each in marked] == [jobs.get_job(scene.database, "poet").best_step] == [step]


def _hold(url: str, ready: Any) -> None:
    with closing(open_database(url)) as database, database.write() as connection:
        connection.execute(select(models).with_for_update())
        ready.set()
        time.sleep(60)


def test_what_a_killed_process_held_is_free_at_once(scene: Any) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 1)
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    child = spawn.Process(target=_hold, args=(scene.url, ready))
    child.start()
    assert ready.wait(60)
    child.kill()
    child.join()
    began = time.monotonic()
    scene.save(claim, 2)
    assert time.monotonic() - began < 5


def test_two_databases_of_a_run_know_nothing_of_each_other(scene: Any, tmp_path: Path) -> None:
    scene.job()
    url = fresh_database(tmp_path)
    with closing(open_database(url)) as other:
        assert jobs.list_jobs(other, 10).data == []
    give_back(url)


class Slow:
    """Lets a transaction stand at a place before its commit until another waits for it, or for ten seconds."""

    def __init__(self, at: str, database: Database) -> None:
        self.arrived = threading.Event()
        self._at = at
        self._database = database

    def __call__(self, name: str) -> None:
        if name == self._at:
            self.arrived.set()
            deadline = time.monotonic() + 10
            while not self._is_waited_for() and time.monotonic() < deadline:
                time.sleep(0.01)

    def _is_waited_for(self) -> bool:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with self._database.read() as connection:
            return connection.execute(text(waiting)).first() is not None


@pytest.fixture
def trained(scene: Any) -> jobs.Job:
    """The job of a model `poet`, at its end, whose corpus nobody needs any more."""
    claim = scene.running(name="poet")
    scene.save(claim, 1)
    claims.finish(scene.database, claim, JobStatus.SUCCEEDED)
    return jobs.get_job(scene.database, claim.job.id)


DELETIONS: dict[str, tuple[str, Callable[[Any, jobs.Job], None]]] = {
    "corpus": ("app.store.corpora", lambda scene, job: corpora.delete_corpus(scene.database, job.corpus_id or "")),
    "model": ("app.store.trained_models", lambda scene, _: trained_models.delete_model(scene.database, "poet")),
}


@pytest.mark.parametrize("what", DELETIONS)
def test_what_a_job_that_is_just_being_queued_needs_is_not_deleted(
    scene: Any, trained: jobs.Job, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    slow = Slow("job.queueing", scene.database)
    monkeypatch.setattr("app.store.jobs.fault_point", slow)
    order = {"corpus_id": trained.corpus_id, "from_checkpoint": "poet@1"}
    thread = threading.Thread(target=scene.job, kwargs={"name": "next", **order})
    thread.start()
    assert slow.arrived.wait(20)
    with pytest.raises(Conflict):
        DELETIONS[what][1](scene, trained)
    thread.join()
    assert jobs.get_job(scene.database, "next").status is JobStatus.QUEUED


@pytest.mark.parametrize("what", DELETIONS)
def test_no_job_is_queued_on_what_is_just_being_deleted(
    scene: Any, trained: jobs.Job, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    slow, (module, delete) = Slow(f"{what}.deleting", scene.database), DELETIONS[what]
    monkeypatch.setattr(f"{module}.fault_point", slow)
    thread = threading.Thread(target=delete, args=(scene, trained))
    thread.start()
    assert slow.arrived.wait(20)
    with pytest.raises(NotFound):
        scene.job(name="next", corpus_id=trained.corpus_id, from_checkpoint="poet@1")
    thread.join()
    assert [job.name for job in jobs.list_jobs(scene.database, 10).data] == ["poet"]


def test_two_may_remove_the_same_large_blob(scene: Any) -> None:
    for _ in range(3):
        blob = blobs.write_blob(scene.database, [bytes(20 * CHUNK_BYTES)])
        assert both(*[lambda key=blob.id: blobs.remove_blob(scene.database, key)] * 2) == [None, None]
        assert scene.dump()["blobs"] == scene.dump()["blob_chunks"] == []


def test_an_idempotency_key_whose_job_is_deleted_meanwhile_is_a_new_one(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, same = scene.corpus(), ("key", "0" * 64)
    first = scene.job(corpus_id=corpus.id, idempotency=same)
    read = jobs.read_job

    def after_a_deletion(connection: Any, job_id: str) -> jobs.Job:
        if job_id == first.id:
            jobs.delete_job(scene.database, first.id)
        return read(connection, job_id)

    monkeypatch.setattr("app.store.jobs.read_job", after_a_deletion)
    assert scene.job(corpus_id=corpus.id, idempotency=same).id != first.id


def test_errors_quote_no_row_and_no_document(scene: Any) -> None:
    job = scene.job()
    for broken, error in (("attempt = -1", IntegrityError), ("best_step = 'much'", DatabaseFailed)):
        with pytest.raises(error) as failed, scene.database.write() as connection:
            connection.execute(text(f"UPDATE jobs SET {broken} WHERE id = :id"), {"id": job.id})
        told = "".join(traceback.format_exception(failed.value))
        assert "Failing row" not in told
        assert "invalid input" in told or "violates check" in told


def test_what_cannot_be_sent_is_no_absence_of_the_server(scene: Any) -> None:
    with pytest.raises(DatabaseFailed), scene.database.read() as connection:
        connection.execute(select(job_rows).where(job_rows.c.name == "a\0b"))
    assert jobs.list_jobs(scene.database, 10, metadata={"a": "\0"}).data == []


def test_a_server_that_takes_no_writes_any_more_is_away_and_its_connections_are_left(scene: Any) -> None:
    job = scene.job()
    name = make_url(scene.url).database
    with closing(open_database(scene.url)) as database:
        command(scene.url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        database._engine.dispose()
        jobs.get_job(database, job.id)  # what reads leave behind on a connection hides nothing
        try:
            with pytest.raises(DatabaseUnreachable):
                jobs.cancel_job(database, job.id)
        finally:
            command(scene.url, "SET default_transaction_read_only = off", f'ALTER DATABASE "{name}" RESET ALL')
        assert jobs.cancel_job(database, job.id).status is JobStatus.CANCELLED


def test_processes_on_machines_whose_clocks_differ_go_by_the_servers(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=3)

    monkeypatch.setattr("app.store.postgres_engine.datetime", Ahead)
    with closing(open_database(scene.url)) as database:
        assert abs(database.now() - datetime.now(UTC)) < timedelta(minutes=1)
