"""Workers announce themselves."""

from typing import Any

from app.store.workers import announce, leave, list_workers


def test_announcing_counts_beats_and_tells_device_and_job(scene: Any) -> None:
    announce(scene.database, "one", "cpu")
    scene.clock.jump(seconds=2)
    announce(scene.database, "one", "cpu", "job_x", memory_bytes=2**40)
    (worker,) = list_workers(scene.database)
    assert (worker.id, worker.device, worker.job_id, worker.beats) == ("one", "cpu", "job_x", 2)
    assert worker.memory_bytes == 2**40
    assert (worker.seen_at - worker.started_at).total_seconds() == 2


def test_a_worker_that_leaves_is_listed_no_more(scene: Any) -> None:
    announce(scene.database, "one", "cpu")
    announce(scene.database, "two", "cuda")
    leave(scene.database, "one")
    assert [worker.id for worker in list_workers(scene.database)] == ["two"]


def test_workers_gone_for_a_day_are_forgotten_when_a_new_one_comes(scene: Any) -> None:
    announce(scene.database, "old", "cpu")
    scene.clock.jump(days=2)
    announce(scene.database, "old", "cpu")
    assert len(list_workers(scene.database)) == 1
    scene.clock.jump(days=2)
    announce(scene.database, "new", "cpu")
    assert [worker.id for worker in list_workers(scene.database)] == ["new"]
