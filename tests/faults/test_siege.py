"""The siege and its witnesses: a short one of real programs, and that each witness can find what it looks for."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update

from app.fault_points import POINTS
from app.store.blobs import write_blob
from app.store.database import Database
from app.store.opening import open_database
from app.store.schema import blobs, corpora
from tests.databases import fresh_database, sqlite_only
from tests.faults import killing
from tests.faults.evidence import history_faults, integrity_faults, orphans
from tests.faults.killing import BEGIN, END, PAGE, SIZES, write_figures
from tests.faults.lives import places
from tests.faults.people import TEXT, Asked, Expected, Ledger, Lost, People
from tests.faults.siege import SERVICE_PLACES, WORKER_PLACES, Outcome, besiege, plan
from tests.faults.signals import freeze
from tests.system.harness import Installation

Told = tuple[str, dict[str, Any]]
QUEUED: Told = ("status", {"status": "queued", "attempt": 0})
RUNNING: Told = ("status", {"status": "running", "attempt": 1})
AGAIN: Told = ("status", {"status": "queued", "attempt": 1})
SECOND: Told = ("status", {"status": "running", "attempt": 2})
DONE: Told = ("status", {"status": "succeeded", "attempt": 2})


def step(number: int) -> Told:
    return ("progress", {"step": number})


@pytest.mark.system
def test_people_lose_nothing_while_service_worker_and_training_are_killed(tmp_path: Path) -> None:
    size = SIZES["short"]
    cycles = plan(1, rounds=size.rounds, random_kills=size.random_kills)
    outcome = besiege(tmp_path, 1, cycles, waiting=size.waiting, seconds=size.siege_seconds)
    assert outcome.deaths.total() >= 2
    assert outcome.ledger.verified >= 1


@pytest.mark.system
def test_a_worker_frozen_past_its_lease_and_thawed_writes_nothing(tmp_path: Path) -> None:
    assert freeze(tmp_path, SIZES["short"].freezes) == 1


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    """Who have a text and a job at a service without a worker."""
    installation = Installation(tmp_path)
    installation.start_api()
    installation.upload(TEXT)
    made = People(installation.url, 1, waiting=1)
    made.upload_text(large=False)
    made.ask("gru")
    yield made
    made.close()
    installation.close()


@pytest.mark.system
def test_people_notice_what_is_missing_back_again_or_there_twice(people: People) -> None:
    people.reckon()
    ledger = people.ledger
    [asked], [corpus_id] = ledger.jobs, list(ledger.corpora)
    ledger.deleted.add(corpus_id)
    with pytest.raises(Lost, match=f"there again: .'{corpus_id}'"):
        people.reckon()
    ledger.deleted.clear()
    ledger.models.append("model_gone")
    with pytest.raises(Lost, match=r"missing: .'model_gone'"):
        people.reckon()
    ledger.models.clear()
    ledger.corpora[corpus_id] = "another text"
    with pytest.raises(Lost, match="is not what was uploaded"):
        people.reckon()
    ledger.corpora.clear()
    ledger.jobs = []
    with pytest.raises(Lost, match=f"nobody has asked for, or twice: .'{asked.job_id}'"):
        people.reckon()
    with pytest.raises(Lost, match="came of job_other"):
        people.ask_again(replace(asked, job_id="job_other"))
    people.expected["gru"] = Expected([(1, 2.0, None)], b"")
    with pytest.raises(Lost, match="another curve"):
        people.compare(asked, {"model_id": None})


@sqlite_only
def test_every_place_is_died_at_by_a_life_or_a_program() -> None:
    assert set(POINTS) == set(places()) | set(WORKER_PLACES)
    assert set(SERVICE_PLACES) <= set(POINTS)


def test_a_seed_draws_the_same_cycles_and_another_one_others() -> None:
    assert plan(3, rounds=2, random_kills=9) == plan(3, rounds=2, random_kills=9)
    assert plan(3, rounds=2, random_kills=9) != plan(4, rounds=2, random_kills=9)
    full = plan(1, rounds=20, random_kills=1000)
    assert len(full) == 20 * (len(SERVICE_PLACES) + len(WORKER_PLACES)) + 1000


def test_a_history_of_one_attempt_after_the_other_is_without_fault() -> None:
    assert history_faults("job", [QUEUED, RUNNING, step(1), step(2), AGAIN, SECOND, step(2), step(3), DONE]) == []


@pytest.mark.parametrize(
    "history",
    [
        [QUEUED, RUNNING, step(2), step(1)],
        [QUEUED, RUNNING, step(2), step(2)],
        [QUEUED, RUNNING, AGAIN, step(1)],
        [QUEUED, RUNNING, ("status", {"status": "running", "attempt": 2})],
        [QUEUED, RUNNING, AGAIN, ("status", {"status": "running", "attempt": 1})],
        [QUEUED, RUNNING, AGAIN, SECOND, DONE, step(9)],
        [QUEUED, RUNNING, AGAIN, SECOND, DONE, ("status", {"status": "queued", "attempt": 2})],
        [RUNNING],
        [QUEUED, RUNNING, ("checkpoint", {"step": 40}), step(41), ("checkpoint", {"step": 20})],
        [QUEUED, RUNNING, ("evaluation", {"step": 40}), ("evaluation", {"step": 40})],
    ],
)
def test_a_history_of_two_attempts_at_once_or_an_undone_end_is_noticed(
    history: list[Told],
) -> None:
    assert history_faults("job", history)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(fresh_database(tmp_path))


def test_bytes_that_no_row_names_and_torn_ones_are_noticed(database: Database) -> None:
    blob = write_blob(database, [b"to be"])
    assert orphans(database) == [f"{blob.id} is written", f"{blob.id} is named by no row"]
    with database.write() as connection:
        connection.execute(update(blobs).values(bytes=9))
    assert f"{blob.id} has 5 of 9 bytes" in orphans(database)
    database.close()


@sqlite_only
def test_a_row_that_names_what_is_not_there_is_noticed(database: Database) -> None:
    assert integrity_faults(database) == []
    row = {"id": "corpus_x", "name": "x", "bytes": 2, "characters": 2, "vocabulary_size": 1, "sha256": "a" * 64}
    with database.write() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.execute(insert(corpora).values(**row, preview="", created_at=database.now(), blob_id="blob_gone"))
        found = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        connection.rollback()
    assert len(found) == 1
    database.close()


def test_the_page_of_promises_has_a_place_for_the_figures() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index(BEGIN) < text.index(END)


def test_figures_take_the_place_of_those_of_before_and_of_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "reliability.md"
    page.write_text(f"above\n{BEGIN}old\n{END}below\n")
    write_figures(page, [("kills", "3", "0 lost")], "python -m tests.faults.killing")
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "| kills | 3 | 0 lost |\n" + END in text
    assert "old" not in text
    page.write_text("without a place")
    with pytest.raises(ValueError, match="no place"):
        write_figures(page, [], "")


class Scripted(People):
    """People whose service answers as a test says."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        super().__init__("http://service", 1, waiting=0)
        for client in self._clients:
            client._http.close()
            client._http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(answer))
        self.expected = {"gru": Expected([], b"weights")}


def test_what_is_gone_before_anybody_deleted_it_is_lost() -> None:
    answers = {"GET": 404, "DELETE": 404}
    with pytest.raises(Lost, match="GET /corpora/a"):
        Scripted(lambda request: httpx.Response(answers[request.method]))._delete("/corpora/a", "a")
    answers["GET"] = 200
    with pytest.raises(Lost, match="deleted by nobody"):
        Scripted(lambda request: httpx.Response(answers[request.method]))._delete("/corpora/a", "a")


def test_what_a_try_without_an_answer_has_deleted_is_deleted() -> None:
    tries: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(request.method)
        if tries == ["GET", "DELETE"]:
            raise httpx.ReadError("the service was killed")
        return httpx.Response(404 if request.method == "DELETE" else 200)

    people = Scripted(answer)
    people._delete("/corpora/a", "a")
    assert people.ledger.deleted == {"a"}


def test_a_cancel_that_was_answered_and_undone_is_lost() -> None:
    people = Scripted(lambda _: httpx.Response(200, json={"status": "succeeded", "model_id": None, "error": None}))
    people.ledger.jobs.append(Asked("key", "gru", "job_a", to_be_cancelled=True, cancelled=True))
    with pytest.raises(Lost, match="answered to be cancelled, and is succeeded"):
        people.look_at_jobs()


def test_a_model_with_other_bytes_is_lost() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/download"):
            return httpx.Response(200, content=b"other weights")
        models = [{"id": "model_a"}] if request.url.path == "/models" else []
        return httpx.Response(200, json={"data": models, "next": None})

    people = Scripted(answer)
    people.ledger.models.append("model_a")
    with pytest.raises(Lost, match="model_a is not what was uploaded"):
        people.reckon()


def test_a_siege_without_deaths_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killing, "besiege", lambda *_, **__: Outcome(ledger=Ledger()))
    with pytest.raises(AssertionError, match="0 deaths say nothing"):
        killing.measure_siege(killing.Order(killing.SIZES["middle"], 1, None))
