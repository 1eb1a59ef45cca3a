"""What a person may ask of a job, and what is refused."""

from typing import Any

import pytest
from sqlalchemy import select

from app.store import claims
from app.store.api_keys import Scope, create_key
from app.store.errors import Conflict, Corrupted, InvalidCursor, NotFound, QueueFull
from app.store.events import events_after, events_before
from app.store.job_state import FINISHED, TRANSITIONS, JobStatus
from app.store.jobs import (
    Order,
    cancel_job,
    delete_job,
    enqueue,
    enqueue_planned,
    first_of_key,
    get_job,
    list_jobs,
    pause_job,
    resume_job,
)
from app.store.metrics import read_metrics
from app.store.names import InvalidName
from app.store.schema import idempotency_keys
from app.store.trained_models import (
    delete_model,
    find_checkpoint,
    get_model,
    list_checkpoints,
    quarantine,
    read_checkpoint,
)

REQUEST = "a" * 64


def bring_to(scene: Any, status: JobStatus) -> Any:
    """A job that stands there."""
    job = scene.job(name="brought")
    if status is JobStatus.QUEUED:
        return job
    if status is JobStatus.PAUSED:
        return pause_job(scene.database, job.id)
    claim = scene.claim()
    if status in FINISHED:
        error = {"code": "diverged"} if status is JobStatus.FAILED else None
        claims.finish(scene.database, claim, status, error)
    return job


def test_a_new_job_waits_with_everything_that_was_asked_for(scene: Any) -> None:
    corpus = scene.corpus()
    job = scene.job(name="mine", model={"cell": "lstm"}, training={"steps": 7})
    assert (job.name, job.status, job.corpus_id, job.corpus_name) == ("mine", JobStatus.QUEUED, corpus.id, "plays")
    assert (job.model, job.training, job.progress, job.error) == ({"cell": "lstm"}, {"steps": 7}, {}, None)
    assert (job.attempt, job.worker, job.place, job.model_id) == (0, None, 1, None)
    assert (job.created_at, job.started_at, job.finished_at) == (scene.clock(), None, None)
    assert get_job(scene.database, job.id) == job
    assert scene.told(job) == [{"status": "queued", "attempt": 0}]


def test_jobs_know_their_place_in_the_queue(scene: Any) -> None:
    made = [scene.job(name=f"job-{number}") for number in range(3)]
    assert [get_job(scene.database, job.id).place for job in made] == [1, 2, 3]
    pause_job(scene.database, made[0].id)
    assert [get_job(scene.database, job.id).place for job in made] == [None, 1, 2]
    resume_job(scene.database, made[0].id)
    assert [get_job(scene.database, job.id).place for job in made] == [1, 2, 3]


def test_the_same_idempotency_key_and_request_give_the_first_job(scene: Any) -> None:
    details = {"name": "once", "corpus_id": scene.corpus().id, "model": {}, "training": {}}
    first, is_new = enqueue(scene.database, **details, idempotency=("key", REQUEST), queue_limit=1)
    again, is_new_again = enqueue(scene.database, **details, idempotency=("key", REQUEST), queue_limit=1)
    assert (is_new, is_new_again, again) == (True, False, first)
    assert first_of_key(scene.database, ("key", REQUEST)) == first
    assert first_of_key(scene.database, ("another key", REQUEST)) is first_of_key(scene.database, None) is None
    before = scene.dump()
    with pytest.raises(Conflict, match="another request"):
        enqueue(scene.database, **details, idempotency=("key", "b" * 64))
    with pytest.raises(Conflict, match="another request"):
        first_of_key(scene.database, ("key", "b" * 64))
    assert scene.dump() == before
    cancel_job(scene.database, first.id)
    assert enqueue(scene.database, **details, idempotency=("key", REQUEST))[0].status is JobStatus.CANCELLED
    delete_job(scene.database, first.id)
    assert enqueue(scene.database, **details, idempotency=("key", REQUEST))[1] is True


def test_an_idempotency_key_is_that_of_its_api_key(scene: Any) -> None:
    longest = "k" * 255
    details = {"name": "once", "corpus_id": scene.corpus().id, "model": {}, "training": {}}
    owners = [None, *(create_key(scene.database, name, frozenset(Scope))[0].id for name in "ab")]
    made = [
        enqueue(scene.database, **details, idempotency=(longest, REQUEST[:-1] + str(number)), key_id=owner)
        for number, owner in enumerate(owners)
    ]
    assert [is_new for _, is_new in made] == [True] * 3
    for number, (owner, (job, _)) in enumerate(zip(owners, made, strict=True)):
        again = longest, REQUEST[:-1] + str(number)
        assert enqueue(scene.database, **details, idempotency=again, key_id=owner) == (job, False)
        assert first_of_key(scene.database, again, key_id=owner) == job
    with scene.database.read() as connection:
        stored = connection.execute(select(idempotency_keys.c.key)).scalars().all()
    assert max(map(len, stored)) == 255, "PostgreSQL refuses more"


def test_a_full_queue_takes_no_more(scene: Any) -> None:
    scene.job(queue_limit=2)
    scene.job(queue_limit=2)
    before = scene.dump()
    with pytest.raises(QueueFull, match="2 jobs"):
        scene.job(queue_limit=2)
    assert scene.dump() == before
    scene.claim()
    scene.job(queue_limit=2)


def test_a_job_needs_a_corpus_a_good_name_and_a_checkpoint_that_exists(scene: Any) -> None:
    scene.corpus()
    before = scene.dump()
    with pytest.raises(NotFound, match="corpus 'nothing'"):
        scene.job(corpus_id="nothing")
    with pytest.raises(NotFound, match="model 'nothing'"):
        scene.job(from_checkpoint="nothing")
    with pytest.raises(InvalidName):
        scene.job(name="no good")
    assert scene.dump() == before


def test_a_corpus_may_be_named_by_its_name(scene: Any) -> None:
    corpus = scene.corpus("plays")
    assert scene.job(corpus_id="plays").corpus_id == corpus.id


def test_a_job_keeps_the_checkpoint_that_it_starts_from(scene: Any) -> None:
    claim = scene.running(name="origin")
    scene.save(claim, 1)
    job = scene.job(name="child", from_checkpoint="origin@1")
    model = get_model(scene.database, "origin")
    assert job.from_checkpoint == f"{model.id}@1"
    for step in range(2, 12):
        scene.save(claim, step)
    assert find_checkpoint(scene.database, job.from_checkpoint)[1].step == 1
    claims.finish(scene.database, claim, JobStatus.SUCCEEDED)
    with pytest.raises(Conflict, match=f"{job.id} starts from it"):
        delete_model(scene.database, "origin")
    cancel_job(scene.database, job.id)
    delete_model(scene.database, "origin")
    assert get_job(scene.database, job.id).from_checkpoint == f"{model.id}@1"


def test_a_checkpoint_that_a_job_starts_from_is_not_replaced_by_one_of_the_same_step(scene: Any) -> None:
    claim = scene.running(name="origin")
    scene.save(claim, 1, val_loss=3.0)
    job = scene.job(name="child", from_checkpoint="origin@1")
    again = {"checkpoint": b"trained anew", "val_loss": 2.0}
    assert scene.save(claim, 1, **again) is None
    _, kept = find_checkpoint(scene.database, job.from_checkpoint)
    assert b"".join(read_checkpoint(scene.database, kept)) == b"weights 1"
    cancel_job(scene.database, job.id)
    assert scene.save(claim, 1, **again) is not None
    _, replaced = find_checkpoint(scene.database, job.from_checkpoint)
    assert b"".join(read_checkpoint(scene.database, replaced)) == b"trained anew"


def test_a_job_tells_how_many_characters_are_new_if_it_starts_from_a_checkpoint(scene: Any) -> None:
    scene.save(scene.running(name="origin"), 1)
    order = Order("child", {"cell": "gru"}, {"steps": 9}, new_characters=7)
    job, _ = enqueue_planned(scene.database, "plays", lambda _: order, from_checkpoint="origin")
    assert get_job(scene.database, job.id).new_characters == job.new_characters == 7
    assert scene.job().new_characters is None


def test_a_job_cannot_start_from_a_damaged_checkpoint(scene: Any) -> None:
    claim = scene.running(name="origin")
    checkpoint = scene.save(claim, 1)
    quarantine(scene.database, checkpoint)
    with pytest.raises(Corrupted):
        scene.job(from_checkpoint="origin@1")


@pytest.mark.parametrize("status", list(JobStatus))
@pytest.mark.parametrize(
    ("act", "target", "allowed"),
    [
        (cancel_job, JobStatus.CANCELLED, {"queued", "paused", "running"}),
        (pause_job, JobStatus.PAUSED, {"queued", "running"}),
        (resume_job, JobStatus.QUEUED, {"paused"}),
        (delete_job, None, {"queued", "paused", "succeeded", "failed", "cancelled"}),
    ],
)
def test_what_is_not_allowed_raises_conflict_and_changes_nothing(
    scene: Any, status: JobStatus, act: Any, target: JobStatus | None, allowed: set[str]
) -> None:
    job = bring_to(scene, status)
    before = scene.dump()
    if status.value not in allowed:
        with pytest.raises(Conflict, match=job.id):
            act(scene.database, job.id)
        assert scene.dump() == before
        return
    act(scene.database, job.id)
    if target is None:
        with pytest.raises(NotFound):
            get_job(scene.database, job.id)
    elif status is not JobStatus.RUNNING:
        assert target in TRANSITIONS[status]
        assert scene.status(job) == target
        assert scene.told(job)[-1]["status"] == target


def test_a_name_means_the_newest_job_that_has_it(scene: Any) -> None:
    older, newer = scene.job(name="same"), scene.job(name="same")
    scene.job(name="other")
    assert get_job(scene.database, "same") == newer
    assert pause_job(scene.database, "same").id == newer.id
    assert resume_job(scene.database, "same") == newer
    assert cancel_job(scene.database, "same").id == newer.id
    delete_job(scene.database, "same")
    assert get_job(scene.database, "same") == older


def test_a_running_job_is_asked_to_stop_and_goes_on_until_its_worker_has_seen_it(scene: Any) -> None:
    claim = scene.running()
    paused = pause_job(scene.database, claim.job.id)
    assert (paused.status, paused.pause_requested) == (JobStatus.RUNNING, True)
    with pytest.raises(Conflict, match="being paused"):
        resume_job(scene.database, claim.job.id)
    cancelled = cancel_job(scene.database, claim.job.id)
    assert (cancelled.status, cancelled.cancel_requested) == (JobStatus.RUNNING, True)
    assert cancel_job(scene.database, claim.job.id) == cancelled
    with pytest.raises(Conflict, match="being cancelled"):
        pause_job(scene.database, claim.job.id)


def test_a_deleted_job_takes_its_events_and_metrics_along_and_leaves_its_model(scene: Any) -> None:
    claim = scene.running(name="gone")
    claims.record_progress(scene.database, claim, {"step": 1, "train_loss": 2.5})
    scene.save(claim, 1)
    claims.finish(scene.database, claim, JobStatus.SUCCEEDED)
    model = get_model(scene.database, "gone")
    assert model.job_id == claim.job.id
    delete_job(scene.database, claim.job.id)
    assert events_after(scene.database, claim.job.id, 0) == []
    with pytest.raises(NotFound):
        read_metrics(scene.database, claim.job.id)
    assert get_model(scene.database, "gone").job_id is None
    assert len(list_checkpoints(scene.database, "gone")) == 1
    assert len(scene.dump()["blobs"]) == 2, "the corpus and the checkpoint: the resume point went"


def test_jobs_are_listed_newest_first_in_pages_and_by_status(scene: Any) -> None:
    made = [scene.job(name=f"job-{number}") for number in range(5)]
    claim = scene.claim()
    page = list_jobs(scene.database, 2)
    assert [job.name for job in page.data] == ["job-4", "job-3"]
    scene.job(name="late")
    page = list_jobs(scene.database, 2, page.next)
    assert [job.name for job in page.data] == ["job-2", "job-1"]
    assert page.next == made[1].id
    assert [job.id for job in list_jobs(scene.database, 9, status=JobStatus.RUNNING).data] == [claim.job.id]
    assert list_jobs(scene.database, 9, status=JobStatus.FAILED).data == []
    with pytest.raises(InvalidCursor):
        list_jobs(scene.database, 2, "job_" + "a" * 26)


@pytest.mark.parametrize("act", [get_job, cancel_job, pause_job, resume_job, delete_job])
@pytest.mark.parametrize("key", ["job_" + "a" * 26, "second", "a b", "", "\ud800"])
def test_an_unknown_job_is_not_found(scene: Any, act: Any, key: str) -> None:
    scene.job()
    with pytest.raises(NotFound):
        act(scene.database, key)


def test_events_are_read_backwards_in_pieces(scene: Any) -> None:
    job = scene.job()
    for act in (pause_job, resume_job, cancel_job):
        act(scene.database, job.id)
    ascending = [event.id for event in events_after(scene.database, job.id, 0)]
    newest = events_before(scene.database, job.id, limit=3)
    rest = events_before(scene.database, job.id, newest[-1].id)
    assert [event.id for event in (*newest, *rest)] == ascending[::-1]
    assert events_before(scene.database, job.id, 2**70) == events_before(scene.database, job.id)
    assert events_before(scene.database, "job_nobody") == []
