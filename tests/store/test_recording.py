"""What a worker tells of a running job: facts, events, checkpoints, and what is kept of them."""

import math
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, update

from app.store import blobs, claims, recording
from app.store.errors import LeaseLost, NotFound, StoreError
from app.store.events import events_after
from app.store.job_state import JobStatus
from app.store.jobs import delete_job, get_job
from app.store.metrics import MetricRow, read_metrics
from app.store.schema import blob_chunks
from app.store.trained_models import (
    delete_model,
    find_checkpoint,
    get_model,
    list_checkpoints,
    quarantine,
    read_checkpoint,
)
from tests.databases import sqlite_only

PROGRESS = {
    "step": 10,
    "steps": 100,
    "epoch": 0.5,
    "fraction": 0.1,
    "train_loss": 2.5,
    "learning_rate": 0.004,
    "gradient_norm": 0.7,
    "characters_per_second": 1e5,
    "seconds": 3.5,
    "eta_seconds": 30.0,
    "memory_bytes": 2**40,
}


def test_progress_is_in_the_job_the_metrics_and_an_event(scene: Any) -> None:
    claim = scene.running()
    claims.record_started(scene.database, claim, {"parameters": 1000, "steps": 90})
    claims.record_progress(scene.database, claim, PROGRESS)
    assert get_job(scene.database, claim.job.id).progress == {"parameters": 1000} | PROGRESS
    expected = MetricRow(10, 0.5, 2.5, None, 0.004, 0.7, 1e5, 3.5, 2**40)
    assert read_metrics(scene.database, claim.job.id) == [expected]
    assert scene.told(claim.job, "progress") == [PROGRESS]


def test_an_evaluation_joins_the_metrics_of_its_step(scene: Any) -> None:
    claim = scene.running()
    claims.record_evaluation(scene.database, claim, 10, 2.25, best=True)
    claims.record_progress(scene.database, claim, PROGRESS)
    claims.record_evaluation(scene.database, claim, 20, 2.5, best=False)
    rows = read_metrics(scene.database, claim.job.id)
    assert [(row.step, row.train_loss, row.val_loss) for row in rows] == [(10, 2.5, 2.25), (20, None, 2.5)]
    job = get_job(scene.database, claim.job.id)
    assert (job.best_step, job.progress["val_loss"]) == (None, 2.5), "nothing is saved yet"
    assert scene.told(claim.job, "evaluation")[0] == {"step": 10, "val_loss": 2.25, "best": True}


SETBACK = {"step": 12, "to_step": 10, "setbacks": 1, "learning_rate": 0.002, "what": "gradient"}


def test_a_setback_voids_the_metrics_after_its_resume_point_and_is_told(scene: Any) -> None:
    claim = scene.running(name="poet")
    for step in (5, 10, 11, 12):
        claims.record_progress(scene.database, claim, PROGRESS | {"step": step})
        if step == 10:
            scene.save(claim, step, val_loss=2.0)
    last = events_after(scene.database, claim.job.id, 0)[-1].id
    claims.record_setback(scene.database, claim, SETBACK)
    claims.record_progress(scene.database, claim, PROGRESS | {"step": 11, "train_loss": 2.25})
    rows = read_metrics(scene.database, claim.job.id)
    assert [(row.step, row.train_loss) for row in rows] == [(5, 2.5), (10, 2.5), (11, 2.25)]
    told = events_after(scene.database, claim.job.id, last)
    assert [(event.type, event.data["step"]) for event in told] == [("setback", 12), ("progress", 11)]
    assert told[0].data == SETBACK
    assert told[0].id > last, "earlier events stay: a client that follows has seen them"
    assert get_job(scene.database, claim.job.id).progress["setbacks"] == 1
    assert find_checkpoint(scene.database, "poet")[1].step == 10


def test_after_a_setback_the_job_stands_where_it_went_back_to(scene: Any) -> None:
    claim = scene.running()
    claims.record_progress(scene.database, claim, PROGRESS | {"step": 12})
    claims.record_setback(scene.database, claim, SETBACK | {"to_step": 0})
    assert get_job(scene.database, claim.job.id).progress["step"] == 0
    assert read_metrics(scene.database, claim.job.id) == []


def test_a_worker_that_lost_its_lease_sets_nothing_back(scene: Any) -> None:
    claim = scene.running()
    claims.record_progress(scene.database, claim, PROGRESS)
    claims.release(scene.database, claim)
    before = scene.dump()
    with pytest.raises(LeaseLost):
        claims.record_setback(scene.database, claim, SETBACK | {"to_step": 0})
    assert scene.dump() == before


def test_numbers_that_are_none_are_stored_as_none(scene: Any) -> None:
    claim = scene.running()
    claims.record_progress(scene.database, claim, PROGRESS | {"train_loss": math.nan, "gradient_norm": math.inf})
    claims.record_evaluation(scene.database, claim, 10, math.nan, best=False)
    row = read_metrics(scene.database, claim.job.id)[0]
    assert (row.train_loss, row.gradient_norm, row.val_loss) == (None, None, None)
    assert scene.told(claim.job, "progress")[0]["gradient_norm"] is None


@pytest.mark.parametrize("sample", ["to be, or not", "👨‍👩‍👧 你好\n\x01", ""])
def test_a_sample_is_told_as_it_is(scene: Any, sample: str) -> None:
    claim = scene.running()
    claims.record_sample(scene.database, claim, 5, sample)
    assert scene.told(claim.job, "sample") == [{"step": 5, "text": sample}]


def test_the_first_checkpoint_makes_a_model_of_the_jobs_name(scene: Any) -> None:
    claim = scene.running(name="poet", model={"cell": "lstm"})
    first = scene.save(claim, 10, val_loss=2.0)
    model = get_model(scene.database, "poet")
    assert (model.job_id, model.corpus_id, model.config) == (claim.job.id, claim.job.corpus_id, {"cell": "lstm"})
    assert (model.vocabulary_size, model.parameters, model.best_step, model.latest_step) == (30, 1000, 10, 10)
    scene.save(claim, 20, val_loss=2.5, info=None)
    model = get_model(scene.database, "poet")
    assert (model.best_step, model.best_val_loss, model.latest_step) == (10, 2.0, 20)
    assert get_job(scene.database, claim.job.id).model_id == model.id
    assert b"".join(read_checkpoint(scene.database, first)) == b"weights 10"
    told = scene.told(claim.job, "checkpoint")
    assert [(event["step"], event["best"], event["model"]) for event in told] == [
        (10, True, model.id),
        (20, False, model.id),
    ]


def test_the_first_checkpoint_needs_to_say_what_the_model_is(scene: Any) -> None:
    claim = scene.running()
    with pytest.raises(ValueError, match="first checkpoint"):
        scene.save(claim, 1, info=None)
    assert len(scene.dump()["blobs"]) == 1


def test_before_a_pause_only_a_resume_point_is_stored(scene: Any) -> None:
    claim = scene.running(name="poet")
    assert scene.save(claim, 10, checkpoint=None, info=None) is None
    assert claims.read_resume_point(scene.database, claim) == b"resume 10"
    with pytest.raises(NotFound):
        get_model(scene.database, "poet")


def test_the_best_the_last_five_and_the_newest_resume_point_are_kept(scene: Any) -> None:
    claim = scene.running(name="poet")
    for step in range(1, 13):
        scene.save(claim, step, val_loss=abs(step - 3) + 1.0)
    kept = list_checkpoints(scene.database, "poet")
    assert [(checkpoint.step, checkpoint.best) for checkpoint in kept] == [
        (12, False),
        (11, False),
        (10, False),
        (9, False),
        (8, False),
        (3, True),
    ]
    assert find_checkpoint(scene.database, "poet")[1].step == 3
    assert claims.read_resume_point(scene.database, claim) == b"resume 12"
    scene.clock.jump(minutes=2)
    blobs.remove_dropped(scene.database)
    assert len(scene.dump()["blobs"]) == 1 + 6 + 1


def test_without_validation_the_last_checkpoint_is_the_best(scene: Any) -> None:
    claim = scene.running(name="poet")
    for step in (1, 2, 3):
        scene.save(claim, step)
    assert find_checkpoint(scene.database, "poet")[1].step == 3
    assert get_job(scene.database, claim.job.id).best_step == 3


def test_a_checkpoint_being_downloaded_survives_its_replacement_for_a_while(scene: Any) -> None:
    claim = scene.running(name="poet")
    size = 3 * 1024 * 1024
    first = scene.save(claim, 1, checkpoint=b"x" * size)
    reading = read_checkpoint(scene.database, first)
    parts = [next(reading)]
    for step in range(2, 9):
        scene.save(claim, step)
    parts += reading
    assert b"".join(parts) == b"x" * size
    with pytest.raises(NotFound):
        find_checkpoint(scene.database, "poet@1")


def test_a_job_that_starts_anew_keeps_its_newest_checkpoints_whatever_their_steps(scene: Any) -> None:
    claim = scene.running(name="poet")
    for step in (100, 200, 300, 400, 500):
        scene.save(claim, step)
    for step in (10, 20, 400):
        scene.save(claim, step, checkpoint=f"anew {step}".encode())
    kept = list_checkpoints(scene.database, "poet")
    assert [checkpoint.step for checkpoint in kept] == [400, 20, 10, 500, 300]
    assert b"".join(read_checkpoint(scene.database, kept[0])) == b"anew 400"


def start_anew(scene: Any, claim: claims.Claim) -> claims.Claim:
    """The claim of the attempt after a crash that found its resume point damaged."""
    claims.release(scene.database, claim, crashed=True)
    with scene.database.write() as connection:
        chunk = blob_chunks.c.data
        connection.execute(update(blob_chunks).where(func.substr(chunk, 1, 6) == b"resume").values(data=b"0"))
    claim = scene.claim()
    assert claims.read_resume_point(scene.database, claim) is None
    claims.drop_after(scene.database, claim, 0)
    return claim


def best_of_all(scene: Any, claim: claims.Claim) -> tuple[int, float, bytes]:
    """The best checkpoint, of which job, model, its mark and the default of generation agree."""
    job, model = get_job(scene.database, claim.job.id), get_model(scene.database, claim.job.name)
    checkpoint = find_checkpoint(scene.database, claim.job.name)[1]
    [marked] = [each for each in list_checkpoints(scene.database, claim.job.name) if each.best]
    assert checkpoint == marked
    assert (job.best_step, job.best_val_loss) == (model.best_step, model.best_val_loss)
    assert (job.best_step, job.best_val_loss) == (checkpoint.step, checkpoint.val_loss)
    return checkpoint.step, checkpoint.val_loss, b"".join(read_checkpoint(scene.database, checkpoint))


def test_a_job_that_starts_anew_keeps_its_best_checkpoint_until_it_is_beaten(scene: Any) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 1000, val_loss=1.5)
    claim = start_anew(scene, claim)
    assert best_of_all(scene, claim) == (1000, 1.5, b"weights 1000")
    for step, loss in ((100, 3.2), (200, 3.1), (300, 3.0), (400, 2.9), (500, 2.8), (600, 2.7)):
        claims.record_evaluation(scene.database, claim, step, loss, best=True)
        scene.save(claim, step, val_loss=loss)
    assert best_of_all(scene, claim) == (1000, 1.5, b"weights 1000")
    assert not any(event["best"] for event in scene.told(claim.job, "evaluation"))
    assert [event["best"] for event in scene.told(claim.job, "checkpoint")] == [True] + 6 * [False]
    claims.record_evaluation(scene.database, claim, 700, 1.4, best=True)
    scene.save(claim, 700, val_loss=1.4)
    assert scene.told(claim.job, "evaluation")[-1]["best"]
    assert best_of_all(scene, claim) == (700, 1.4, b"weights 700")


@pytest.mark.parametrize(("loss", "kept"), [(1.6, b"weights 1000"), (1.5, b"anew"), (1.4, b"anew")])
def test_a_job_that_starts_anew_replaces_the_best_of_a_step_only_by_what_does_as_well(
    scene: Any, loss: float, kept: bytes
) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 1000, val_loss=1.5)
    claim = start_anew(scene, claim)
    scene.save(claim, 1000, val_loss=loss, checkpoint=b"anew")
    assert best_of_all(scene, claim) == (1000, min(loss, 1.5), kept)
    assert claims.read_resume_point(scene.database, claim) == b"resume 1000"
    scene.clock.jump(minutes=2)
    blobs.remove_dropped(scene.database)
    assert len(scene.dump()["blobs"]) == 1 + 1 + 1, "corpus, checkpoint, resume point"


def test_an_equal_loss_does_not_beat_the_best(scene: Any) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 1, val_loss=1.5)
    scene.save(claim, 2, val_loss=1.5)
    assert best_of_all(scene, claim) == (1, 1.5, b"weights 1")


def test_a_damaged_best_leaves_its_place_to_the_next_which_is_kept(scene: Any) -> None:
    claim = scene.running(name="poet")
    best = scene.save(claim, 1, val_loss=1.0)
    scene.save(claim, 2, val_loss=1.5)
    quarantine(scene.database, best)
    assert best_of_all(scene, claim) == (2, 1.5, b"weights 2")
    for step in range(3, 12):
        scene.save(claim, step, val_loss=2.0)
    assert best_of_all(scene, claim) == (2, 1.5, b"weights 2")


def test_without_validation_the_best_is_there_also_after_a_resume(scene: Any) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 80)
    claims.release(scene.database, claim)
    claim = scene.claim()
    claims.drop_after(scene.database, claim, 80)
    assert get_job(scene.database, claim.job.id).best_step == 80
    scene.save(claim, 100)
    assert get_job(scene.database, claim.job.id).best_step == 100
    claims.finish(scene.database, claim, JobStatus.SUCCEEDED)
    delete_model(scene.database, "poet")
    assert get_job(scene.database, claim.job.id).best_step == 100, "what it came to, though nothing is left of it"


def test_losing_the_lease_while_chunks_are_written_leaves_nothing(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 1)
    written = []

    def write_and_lose(database: Any, pieces: Any) -> blobs.Blob:
        blob = blobs.write_blob(database, pieces)
        written.append(blob)
        if len(written) == 2:
            claims.release(database, claim, crashed=True)
            scene.claim("worker-2")
        return blob

    monkeypatch.setattr(recording, "write_blob", write_and_lose)
    with pytest.raises(LeaseLost):
        scene.save(claim, 2)
    assert len(scene.dump()["blobs"]) == 1 + 2
    assert [checkpoint.step for checkpoint in list_checkpoints(scene.database, "poet")] == [1]


@pytest.mark.parametrize("place", ["keep", "insert_checkpoint", "retain", "append_event"])
def test_a_failure_at_any_point_of_saving_shows_nothing_new(
    scene: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 1)

    def broken(*_: Any, **__: Any) -> None:
        raise StoreError("broken")

    before = {name: rows for name, rows in scene.dump().items() if name != "jobs"}
    with monkeypatch.context() as patch:
        patch.setattr(recording, place, broken)
        with pytest.raises(StoreError, match="broken"):
            scene.save(claim, 2)
    assert {name: rows for name, rows in scene.dump().items() if name != "jobs"} == before
    assert claims.read_resume_point(scene.database, claim) == b"resume 1"
    scene.save(claim, 2)
    assert get_model(scene.database, "poet").latest_step == 2


@sqlite_only
def test_training_for_long_keeps_the_file_small(scene: Any, tmp_path: Path) -> None:
    claim = scene.running(name="poet")
    for step in range(1, 31):
        scene.save(claim, step, checkpoint=b"w" * 1_000_000, resume_point=b"r" * 2_000_000)
        scene.clock.jump(minutes=2)
    assert (tmp_path / "charsmith.db").stat().st_size < 16_000_000
    claims.finish(scene.database, claim, JobStatus.SUCCEEDED)
    assert (tmp_path / "charsmith.db").stat().st_size < 9_000_000


def test_event_ids_ascend_and_are_never_used_again(scene: Any) -> None:
    first = scene.running(name="one")
    claims.finish(scene.database, first, JobStatus.SUCCEEDED)
    last = events_after(scene.database, first.job.id, 0)[-1].id
    delete_job(scene.database, first.job.id)
    job = scene.job(name="two")
    assert events_after(scene.database, job.id, 0)[0].id > last


def test_events_are_read_from_where_one_stopped(scene: Any) -> None:
    claim = scene.running()
    for step in range(5):
        claims.record_sample(scene.database, claim, step, "…")
    first = events_after(scene.database, claim.job.id, 0, limit=4)
    rest = events_after(scene.database, claim.job.id, first[-1].id)
    assert [event.type for event in first + rest] == ["status", "status", *["sample"] * 5]
    assert first[0].created_at == scene.clock()
    assert events_after(scene.database, claim.job.id, rest[-1].id) == []
    assert events_after(scene.database, claim.job.id, 10**30) == []
    assert len(events_after(scene.database, claim.job.id, -(10**30))) == 7
    assert events_after(scene.database, "job_unknown", 0) == []
