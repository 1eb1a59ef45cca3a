"""Whose turn it is: keys take turns, each with its oldest job, and everybody is told a place that is true."""

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from app.store.api_keys import Scope, create_key, revoke_key
from app.store.claims import claim_next, release
from app.store.errors import QueueFull
from app.store.job_state import JobStatus
from app.store.jobs import get_job, list_jobs, pause_job, resume_job
from app.store.queue import next_in_turn, place_of
from app.store.schema import jobs
from tests.databases import sqlite_only


@pytest.fixture
def keys(scene: Any) -> dict[str, str]:
    """The ids of keys, by their names."""
    return {name: create_key(scene.database, name, frozenset(Scope))[0].id for name in ("a", "b", "c")}


def queue(scene: Any, *names: str, keys: dict[str, str]) -> None:
    """Jobs of these names; the first letter is whose they are, `-` nobody's."""
    for name in names:
        scene.job(name=name, key_id=keys.get(name[0]))


def claimed(scene: Any, number: int) -> list[str]:
    return [scene.claim(f"worker-{turn}").job.name for turn in range(number)]


def places(scene: Any) -> list[str]:
    """The names of all waiting jobs in the order of the places that they are told."""
    waiting = list_jobs(scene.database, 100, status=JobStatus.QUEUED).data
    told = sorted((job.place, job.name) for job in waiting)
    assert [place for place, _ in told] == list(range(1, len(told) + 1))
    return [name for _, name in told]


def test_without_keys_jobs_go_first_in_first_out(scene: Any) -> None:
    queue(scene, "-1", "-2", "-3", keys={})
    assert places(scene) == claimed(scene, 3) == ["-1", "-2", "-3"]


def test_one_key_alone_goes_first_in_first_out(scene: Any, keys: dict[str, str]) -> None:
    queue(scene, "a1", "a2", "a3", keys=keys)
    assert places(scene) == claimed(scene, 3) == ["a1", "a2", "a3"]


def test_keys_take_turns_and_those_without_one_are_one(scene: Any, keys: dict[str, str]) -> None:
    queue(scene, "a1", "a2", "a3", "a4", "b1", "-1", "-2", "b2", keys=keys)
    order = ["a1", "b1", "-1", "a2", "b2", "-2", "a3", "a4"]
    assert places(scene) == order
    assert claimed(scene, 8) == order


def test_a_thousand_jobs_of_one_key_keep_the_first_of_another_waiting_for_the_running_ones_alone(
    scene: Any, keys: dict[str, str]
) -> None:
    crowd(scene, {keys["a"]: 1000})
    assert claimed(scene, 2) == ["job-0", "job-1"], "two workers are busy with them"
    queue(scene, "b1", keys=keys)
    assert get_job(scene.database, "b1").place == 1
    assert claimed(scene, 3) == ["b1", "job-2", "job-3"]


def test_who_was_served_while_nobody_else_waited_is_not_held_back_for_it(scene: Any, keys: dict[str, str]) -> None:
    queue(scene, "a1", "a2", "a3", keys=keys)
    claimed(scene, 3)
    queue(scene, "b1", "b2", "b3", "a4", "a5", keys=keys)
    assert claimed(scene, 5) == ["b1", "a4", "b2", "a5", "b3"]


def test_no_key_comes_twice_before_another_that_waits_however_it_queues_and_pauses(
    scene: Any, keys: dict[str, str]
) -> None:
    """Any order of acts; with places that come true as long as nothing else happens. 100 acts of a fixed seed."""
    chance, number, waiting_since = random.Random(7), 0, dict.fromkeys("abc-", 0)
    for _ in range(100):
        act = chance.choice(["queue", "queue", "claim", "claim", "pause", "resume"])
        waiting = places(scene)
        if act == "queue":
            number += 1
            queue(scene, f"{chance.choice('abc-')}{number}", keys=keys)
        elif act == "pause" and waiting:
            pause_job(scene.database, chance.choice(waiting))
        elif act == "resume" and (paused := list_jobs(scene.database, 100, status=JobStatus.PAUSED).data):
            resume_job(scene.database, chance.choice(paused).id)
        elif act == "claim" and waiting:
            assert claimed(scene, 1) == waiting[:1]
            owner = waiting[0][0]
            for other in {name[0] for name in waiting} - {owner}:
                waiting_since[other] += 1
                assert waiting_since[other] <= 3, "of four keys"
            waiting_since[owner] = 0
        for key in set(waiting_since) - {name[0] for name in places(scene)}:
            waiting_since[key] = 0


@pytest.mark.parametrize("crashed", [True, False])
def test_a_job_whose_worker_is_gone_runs_again_before_others_of_any_key(
    scene: Any, keys: dict[str, str], crashed: bool
) -> None:
    queue(scene, "a1", "a2", "b1", "b2", "-1", keys=keys)
    assert claimed(scene, 1) == ["a1"]
    second = scene.claim("worker-2")
    assert second.job.name == "b1"
    release(scene.database, second, crashed=crashed)
    assert places(scene)[0] == "b1"
    assert claimed(scene, 4) == ["b1", "-1", "a2", "b2"]


def test_jobs_of_a_key_that_was_revoked_are_trained_all_the_same(scene: Any, keys: dict[str, str]) -> None:
    queue(scene, "a1", "b1", keys=keys)
    revoke_key(scene.database, "a")
    assert claimed(scene, 2) == ["a1", "b1"]
    assert claim_next(scene.database, "worker") is None


def test_jobs_that_a_worker_cannot_run_now_are_passed_over_and_wait_for_others(
    scene: Any, keys: dict[str, str]
) -> None:
    queue(scene, "a1", "a2", "b1", keys=keys)
    first = get_job(scene.database, "a1").id
    for name in ("a2", "b1"):
        claim = claim_next(scene.database, "worker-1", not_now={first})
        assert claim is not None
        assert claim.job.name == name
    before = scene.dump()
    assert claim_next(scene.database, "worker-1", not_now={first}) is None
    assert scene.dump() == before
    assert claimed(scene, 1) == ["a1"]


def test_a_key_may_have_fewer_jobs_waiting_than_all_together(scene: Any) -> None:
    few = {"a": create_key(scene.database, "few", frozenset(Scope), max_queued_jobs=2)[0].id}
    queue(scene, "a1", "a2", "-1", keys=few)
    before = scene.dump()
    with pytest.raises(QueueFull, match="2 jobs of this API key are waiting already"):
        queue(scene, "a3", keys=few)
    assert scene.dump() == before
    with pytest.raises(QueueFull, match="3 jobs are waiting already"):
        scene.job(name="a4", key_id=few["a"], queue_limit=3)
    pause_job(scene.database, "a1")
    queue(scene, "a3", "-2", keys=few)
    with pytest.raises(QueueFull, match="2 jobs of this API key"):
        resume_job(scene.database, "a1")
    assert claimed(scene, 1) == ["a2"]
    assert resume_job(scene.database, "a1").status is JobStatus.QUEUED


def test_a_queue_that_one_key_has_filled_takes_the_first_job_of_every_other(scene: Any, keys: dict[str, str]) -> None:
    crowd(scene, {keys["a"]: 1000})
    first = {name: scene.job(name=f"{name}1", key_id=keys.get(name)) for name in ("b", "c", "-")}
    before = scene.dump()
    for name in ("a", *first):
        with pytest.raises(QueueFull, match="1000 jobs are waiting already"):
            scene.job(name=f"{name}2", key_id=keys.get(name))
    assert scene.dump() == before
    pause_job(scene.database, first["b"].id)
    scene.job(name="b2", key_id=keys["b"])
    assert claimed(scene, 4) == ["job-0", "c1", "-1", "b2"]


def test_a_first_job_too_must_be_allowed_to_its_key(scene: Any) -> None:
    one = create_key(scene.database, "one", frozenset(Scope), max_queued_jobs=1)[0].id
    scene.job(name="-1")
    scene.job(name="o1", key_id=one, queue_limit=1)
    with pytest.raises(QueueFull, match="1 job of this API key"):
        scene.job(name="o2", key_id=one, queue_limit=9)


@pytest.mark.parametrize("whose", ["a", "-"])
def test_pausing_and_resuming_is_no_way_into_a_full_queue(scene: Any, keys: dict[str, str], whose: str) -> None:
    queue(scene, f"{whose}1", f"{whose}2", keys=keys)
    pause_job(scene.database, f"{whose}1")
    before = scene.dump()
    with pytest.raises(QueueFull, match="1 job is waiting already"):
        resume_job(scene.database, f"{whose}1", queue_limit=1)
    assert scene.dump() == before
    scene.claim()
    assert resume_job(scene.database, f"{whose}1", queue_limit=1).status is JobStatus.QUEUED


def crowd(scene: Any, numbers: dict[str, int]) -> None:
    """So many waiting jobs of each key, taking turns, as a thousand requests would leave them."""
    pattern = scene.job(name="pattern")
    with scene.database.write() as connection:
        row = dict(connection.execute(select(jobs).where(jobs.c.id == pattern.id)).one()._mapping)
        connection.execute(jobs.delete())
        del row["sequence"]
        rows = [row | {"name": f"job-{n}", "key_id": key} for key, number in numbers.items() for n in range(number)]
        for place, each in enumerate(rows):
            each["id"] = f"job_{place:026}".translate(str.maketrans("0189", "abcd"))
        connection.execute(insert(jobs), rows)


@sqlite_only
@pytest.mark.parametrize("not_now", [(), ("job_of_another_day",)])
def test_claiming_among_a_thousand_jobs_reads_an_index_alone(
    scene: Any, keys: dict[str, str], not_now: tuple[str, ...]
) -> None:
    crowd(scene, {keys["a"]: 500, keys["b"]: 500})
    with scene.database.read() as connection:
        compiled = next_in_turn(not_now).compile(connection, compile_kwargs={"literal_binds": True})
        plan = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    assert any("COVERING INDEX ix_jobs_status_key_id_sequence (status=?)" in line for line in plan), plan
    assert claim_next(scene.database, "worker", not_now=not_now) is not None


def processor_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def read_one(scene: Any, query: Any) -> object:
    with scene.database.read() as connection:
        return connection.execute(query).scalar_one()


def test_places_are_worked_out_once_for_a_whole_page(scene: Any, keys: dict[str, str]) -> None:
    """By the processor time of one such working out: for each of a hundred jobs it would be a hundred times as much."""
    crowd(scene, {keys["a"]: 500, keys["b"]: 500})
    one = select(place_of(jobs)).where(jobs.c.sequence == 1000)
    once = min(processor_seconds(lambda: read_one(scene, one)) for _ in range(5))
    with scene.database.read() as connection:
        told = dict(connection.execute(select(jobs.c.id, place_of(jobs))).all())
    assert sorted(told.values()) == list(range(1, 1001))
    page = list_jobs(scene.database, 100).data
    assert min(processor_seconds(lambda: list_jobs(scene.database, 100)) for _ in range(3)) < 30 * once
    assert [told[job.id] for job in page] == [job.place for job in page]
