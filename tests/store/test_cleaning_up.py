"""What is removed after a commit: that it cannot be removed now makes nothing of the act undone, or told as failed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.store import blobs, claims, corpora, jobs, trained_models
from app.store.errors import DatabaseBusy, DiskFull, StoreError
from app.store.job_state import JobStatus
from app.store.schema import blob_chunks
from app.store.schema import blobs as blob_rows
from tests.store.conftest import TEXT


def delete_corpus(scene: Any) -> None:
    claims.finish(scene.database, scene.claim(), JobStatus.SUCCEEDED)
    corpora.delete_corpus(scene.database, "plays")


def delete_model(scene: Any) -> None:
    claim = scene.claim()
    scene.save(claim, 1)
    claims.finish(scene.database, claim, JobStatus.SUCCEEDED)
    trained_models.delete_model(scene.database, "first")


def delete_job(scene: Any) -> None:
    claim = scene.claim()
    scene.save(claim, 1)
    claims.release(scene.database, claim, pause=True)
    jobs.delete_job(scene.database, "first")


def upload_again(scene: Any) -> None:
    assert not corpora.add_corpus(scene.database, [TEXT.encode()], "again").is_new


def save_twice(scene: Any) -> None:
    claim = scene.claim()
    for step in (1, 2):
        scene.save(claim, step)
    assert [each["step"] for each in scene.told(claim.job, "checkpoint")] == [1, 2]


def give_a_damaged_resume_point_up(scene: Any) -> None:
    claim = scene.claim()
    scene.save(claim, 1)
    with scene.database.write() as connection:
        connection.execute(update(blob_chunks).values(data=b"damaged"))
    assert claims.read_resume_point(scene.database, claim) is None


ACTS = [delete_corpus, delete_model, delete_job, upload_again, save_twice, give_a_damaged_resume_point_up]


@pytest.mark.parametrize("error", [DiskFull(), DatabaseBusy(15)], ids=["full", "locked"])
@pytest.mark.parametrize("act", ACTS)
def test_an_act_whose_leftovers_cannot_be_removed_is_done_and_the_sweep_takes_them(
    scene: Any, monkeypatch: pytest.MonkeyPatch, act: Callable[[Any], None], error: StoreError
) -> None:
    def fail(*_: object) -> None:
        raise error

    scene.job()
    with monkeypatch.context() as broken:
        broken.setattr(blobs, "_delete_chunks", fail)
        broken.setattr(scene.database, "give_back_space", fail)
        act(scene)
    scene.clock.jump(hours=2)
    assert blobs.sweep(scene.database, timedelta(hours=1)) > 0
    with scene.database.read() as connection:
        assert set(connection.execute(select(blob_rows.c.stage)).scalars()) <= {"kept"}
