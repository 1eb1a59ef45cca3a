"""Real processes against one database: nothing is done twice, nothing half done is seen."""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update

from app.store import claims, corpora, jobs, recording
from app.store.blobs import sweep
from app.store.errors import Conflict, LeaseLost, NotFound
from app.store.job_state import FINISHED, JobStatus
from app.store.opening import open_database
from app.store.schema import blobs
from app.store.trained_models import get_model, list_checkpoints

spawn = multiprocessing.get_context("spawn")


def start(body: Any, *arguments: Any) -> Any:
    child = spawn.Process(target=body, args=arguments)
    child.start()
    return child


def _claim_all(url: str, name: str, barrier: Any, results: Any) -> None:
    database = open_database(url)
    barrier.wait(60)
    claimed = []
    while (claim := claims.claim_next(database, name)) is not None:
        claimed.append((claim.job.id, claim.attempt))
        claims.renew(database, claim)
    results.put(claimed)
    database.close()


def test_eight_processes_claim_a_hundred_jobs_each_exactly_once(scene: Any) -> None:
    made = [scene.job(name=f"job-{number}") for number in range(100)]
    barrier, results = spawn.Barrier(8), spawn.Queue()
    children = [start(_claim_all, scene.url, f"worker-{number}", barrier, results) for number in range(8)]
    claimed = [claim for _ in children for claim in results.get(timeout=60)]
    for child in children:
        child.join(60)
    assert Counter(claimed) == Counter((job.id, 1) for job in made)


def _race(url: str, barrier: Any, claimed: Any, results: Any) -> None:
    """The worker of a job that is cancelled by somebody else at the same moment."""
    database = open_database(url)
    while (claim := claimed.get(timeout=60)) is not None:
        barrier.wait(60)
        try:
            claims.finish(database, claim, JobStatus.SUCCEEDED)
            results.put("finished")
        except LeaseLost:
            results.put("lost")
    database.close()


def test_a_cancel_racing_a_finish_ends_a_job_once(scene: Any) -> None:
    barrier, claimed, results = spawn.Barrier(2), spawn.Queue(), spawn.Queue()
    child = start(_race, scene.url, barrier, claimed, results)
    for number in range(15):
        claim = scene.running(name=f"job-{number}")
        claimed.put(claim)
        barrier.wait(60)
        try:
            flagged = jobs.cancel_job(scene.database, claim.job.id).cancel_requested
        except Conflict:
            flagged = False
        assert results.get(timeout=60) == "finished"
        assert scene.status(claim.job) == "succeeded"
        ends = [told for told in scene.told(claim.job) if JobStatus(told["status"]) in FINISHED]
        assert len(ends) == 1, f"cancel was {'noted' if flagged else 'refused'}"
    claimed.put(None)
    child.join(60)


def _upload_and_die(url: str) -> None:
    database = open_database(url)

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield b"half a text\n" * 100_000
        os.kill(os.getpid(), signal.SIGKILL)

    corpora.add_corpus(database, pieces(), "half")


def _save_and_die(url: str, claim: claims.Claim, place: str) -> None:
    database = open_database(url)
    setattr(recording, place, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    facts = {"train_loss": 1.0, "val_loss": 1.0, "info": None}
    claims.record_saved(database, claim, step=2, checkpoint=b"w" * 10**6, resume_point=b"r" * 10**6, **facts)  # type: ignore[arg-type]


def test_an_upload_killed_half_way_is_invisible_and_swept_away_later(scene: Any) -> None:
    child = start(_upload_and_die, scene.url)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(NotFound):
        corpora.get_corpus(scene.database, "half")
    assert len(scene.dump()["blob_chunks"]) >= 3
    with scene.database.write() as connection:  # the child lived by the real clock
        connection.execute(update(blobs).values(touched_at=scene.clock()))
    scene.clock.jump(hours=2)
    assert sweep(scene.database) == 1
    assert (scene.dump()["blobs"], scene.dump()["blob_chunks"]) == ([], [])


@pytest.mark.parametrize("place", ["insert_checkpoint", "append_event"])
def test_a_worker_killed_while_saving_leaves_the_checkpoint_and_resume_point_of_before(scene: Any, place: str) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 1)
    child = start(_save_and_die, scene.url, claim, place)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert [checkpoint.step for checkpoint in list_checkpoints(scene.database, "poet")] == [1]
    claims.release(scene.database, claim, crashed=True)
    again = scene.claim("worker-2")
    assert claims.read_resume_point(scene.database, again) == b"resume 1"
    scene.save(again, 2)
    assert get_model(scene.database, "poet").latest_step == 2


def _enqueue(url: str, barrier: Any, results: Any) -> None:
    database = open_database(url)
    barrier.wait(60)
    for number in range(10):
        details: dict[str, Any] = {"name": "once", "corpus_id": "plays", "model": {}, "training": {}}
        job, is_new = jobs.enqueue(database, **details, idempotency=(f"key-{number}", "a" * 64))
        results.put((number, job.id, is_new))
    database.close()


def test_processes_that_send_the_same_request_at_once_make_one_job(scene: Any) -> None:
    scene.corpus()
    barrier, results = spawn.Barrier(3), spawn.Queue()
    children = [start(_enqueue, scene.url, barrier, results) for _ in range(3)]
    answers = [results.get(timeout=60) for _ in range(30)]
    for child in children:
        child.join(60)
    assert len({(number, job_id) for number, job_id, _ in answers}) == 10
    assert Counter(number for number, _, is_new in answers if is_new) == Counter(range(10))
