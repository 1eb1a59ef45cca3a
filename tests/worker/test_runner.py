"""The runner: whatever a child does, its job is recorded as what it is."""

import errno
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from app.processes import StopRequest
from app.settings import Settings
from app.store import blobs, claims, corpora, events, jobs, metrics, trained_models, workers
from app.store.database import Database
from app.store.errors import DatabaseBusy, DiskFull
from app.store.job_state import JobStatus
from models.config import ModelConfig, TrainingConfig
from tests.databases import damage
from tests.system.harness import wait_for
from tests.worker.conftest import TEXT, ScriptedChild
from worker import attempts, postponed, runner, workspace
from worker.device import choose_device
from worker.events import Evaluated, Finished, Progress, Sampled, Saved, Setback, Started, Ticked
from worker.executor import OwnDevice
from worker.launch import ChildCrashed, TrainingFailed, TrainingRefusal, TrainingTask
from worker.runner import DeviceLost, Runner

MEMORY_BYTES = 2**30
STARTED = Started(0, 10, 1234, 20, 1900, 200, "cpu", "float32")


def progress(step: int) -> Progress:
    return Progress(step, 10, step / 5, step / 10, 2.5 - step / 10, 1e-3, 0.7, 5000.0, float(step), 10.0 - step, 10**9)


def saved(step: int) -> Saved:
    return Saved(step, 2.0, 2.1, True, b"checkpoint", b"resume point %d" % step)


class Rig:
    """A runner whose children follow one script after another."""

    def __init__(self, database: Database, folder: Path, *scripts: list, **settings: Any) -> None:
        self.database = database
        self.children = [ScriptedChild(script) for script in scripts]
        self.tasks: list[TrainingTask] = []
        self.texts: list[bytes] = []
        self.stop = StopRequest()
        self.executor = OwnDevice("cpu", MEMORY_BYTES, None)
        self.executor.start = self._start
        self.runner = Runner(
            database,
            Settings(data_dir=folder, **settings),
            "worker-1",
            self.executor,
            self.stop,
        )
        self.folder = folder / "tmp" / "attempts"

    def _start(self, task: TrainingTask) -> ScriptedChild:
        self.tasks.append(task)
        self.texts.append(Path(task.text_path).read_bytes())
        return self.children[len(self.tasks) - 1]

    def run_all(self) -> None:
        for _ in self.children:
            claim = claims.claim_next(self.database, "worker-1")
            assert claim is not None
            self.runner._attempts.run(claim)


def test_a_job_that_trains_to_its_end_succeeds_with_all_it_said(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    script = [
        Ticked("loading", 0),
        STARTED,
        progress(5),
        Evaluated(5, 2.1, True),
        Sampled(5, "to be"),
        saved(5),
        progress(10),
        Finished(10, "budget", 5, 2.1),
    ]
    rig = Rig(database, tmp_path, script)
    rig.run_all()
    job = jobs.get_job(database, job_id)
    assert (job.status, job.best_step, job.best_val_loss) == ("succeeded", 5, 2.1)
    assert [row.step for row in metrics.read_metrics(database, job_id)] == [5, 10]
    model = trained_models.get_model(database, "hamlet")
    assert model.id == job.model_id
    _, checkpoint = trained_models.find_checkpoint(database, "hamlet")
    assert b"".join(trained_models.read_checkpoint(database, checkpoint)) == b"checkpoint"
    kinds = [event.type for event in events.events_after(database, job_id, 0, 100)]
    assert kinds.count("sample") == kinds.count("evaluation") == kinds.count("checkpoint") == 1
    corpus = corpora.get_corpus(database, "hamlet")
    assert rig.texts == [b"".join(corpora.read_corpus(database, corpus))]
    assert rig.children[0].closed
    assert list(rig.folder.iterdir()) == []


def test_an_attempt_after_a_crash_goes_on_from_the_resume_point_and_drops_later_metrics(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    crash = [STARTED, progress(5), saved(5), progress(7), ChildCrashed(-9)]
    again = [Started(5, 10, 1234, 20, 1900, 200, "cpu", "float32"), progress(10), Finished(10, "budget", 5, 2.1)]
    rig = Rig(database, tmp_path, crash, again)
    rig.run_all()
    assert [task.resume_point for task in rig.tasks] == [None, b"resume point 5"]
    assert [row.step for row in metrics.read_metrics(database, job_id)] == [5, 10]
    job = jobs.get_job(database, job_id)
    assert (job.status, job.attempt) == ("succeeded", 2)


@pytest.mark.parametrize(
    ("exit_code", "counted", "code", "tries"),
    [(-9, 1, "out_of_memory", 2), (-9, 0, "crash_loop", 3), (-11, 1, "crash_loop", 3), (1, 1, "crash_loop", 3)],
)
def test_a_process_that_the_system_killed_for_lack_of_memory_is_tried_once_more(
    database: Database,
    job_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exit_code: int,
    counted: int,
    code: str,
    tries: int,
) -> None:
    kills = itertools.count(7, counted)
    monkeypatch.setattr(attempts, "memory_kills", lambda: next(kills))
    rig = Rig(database, tmp_path, *[[STARTED, ChildCrashed(exit_code)]] * tries)
    rig.run_all()
    job = jobs.get_job(database, job_id)
    assert job.error is not None
    assert (job.status, job.error["code"], job.attempt) == ("failed", code, tries)


def test_where_no_training_can_begin_any_more_the_worker_ends_and_no_job_pays_for_it(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    rig = Rig(database, tmp_path, [ChildCrashed(1)])
    rig.executor.works = lambda: False  # type: ignore[method-assign]
    with pytest.raises(DeviceLost, match="cpu does not work"):
        rig.runner.run()
    job = jobs.get_job(database, job_id)
    assert (job.status, job.attempt, job.error) == ("queued", 1, None)
    assert workers.list_workers(database) == []
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT crashes FROM jobs").scalar() == 0


@pytest.mark.parametrize("script", [[STARTED, ChildCrashed(1)], [ChildCrashed(-11)]])
def test_a_crash_that_the_device_is_not_to_blame_for_asks_nobody(
    database: Database, job_id: str, tmp_path: Path, script: list
) -> None:
    rig = Rig(database, tmp_path, script)
    rig.executor.works = lambda: pytest.fail("asked")  # type: ignore[method-assign]
    rig.run_all()
    assert jobs.get_job(database, job_id).status == "queued"


def test_a_stop_while_a_large_text_is_written_out_gives_the_job_back_at_once(
    database: Database, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(database, tmp_path, [STARTED])

    def endless(*_: Any) -> Any:
        rig.stop.set()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            yield b"text"
        pytest.fail("it was written out to the end")

    monkeypatch.setattr(corpora, "read_corpus", endless)
    rig.run_all()
    assert rig.tasks == []
    assert jobs.get_job(database, job_id).status == "queued"
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT crashes FROM jobs").scalar() == 0


def test_a_setback_drops_later_metrics_and_the_next_attempt_knows_of_it(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    set_back = [STARTED, progress(5), saved(5), progress(7), Setback(8, 5, 1, 5e-4, "gradient")]
    set_back += [Saved(5, 2.0, None, False, None, b"slower"), progress(6), ChildCrashed(-9)]
    again = [Started(5, 10, 1234, 20, 1900, 200, "cpu", "float32", 1), progress(10), Finished(10, "budget", 5, 2.1)]
    rig = Rig(database, tmp_path, set_back, again)
    rig.run_all()
    assert [task.resume_point for task in rig.tasks] == [None, b"slower"]
    assert [row.step for row in metrics.read_metrics(database, job_id)] == [5, 10]
    job = jobs.get_job(database, job_id)
    assert (job.status, job.progress["setbacks"]) == ("succeeded", 1)
    told = [event for event in events.events_after(database, job_id, 0) if event.type == "setback"]
    expected = {"step": 8, "to_step": 5, "setbacks": 1, "learning_rate": 5e-4, "what": "gradient"}
    assert [event.data for event in told] == [expected]
    assert trained_models.find_checkpoint(database, "hamlet")[1].step == 5


def test_three_crashes_without_progress_fail_a_job_and_progress_in_between_forgives(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    crash = [STARTED, ChildCrashed(-11)]
    rig = Rig(database, tmp_path, crash, crash, [STARTED, saved(5), ChildCrashed(-11)], crash, crash)
    rig.run_all()
    job = jobs.get_job(database, job_id)
    assert (job.status, job.attempt) == ("failed", 5)
    assert job.error is not None
    assert job.error["code"] == "crash_loop"


def test_a_refusal_fails_the_job_with_its_reason_and_keeps_its_checkpoints(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    refusal = TrainingFailed(TrainingRefusal("diverged", "the loss is not a number", "traceback"))
    Rig(database, tmp_path, [STARTED, saved(5), refusal]).run_all()
    job = jobs.get_job(database, job_id)
    assert (job.status, job.error) == ("failed", {"code": "diverged", "detail": "the loss is not a number"})
    assert trained_models.find_checkpoint(database, "hamlet")[1].step == 5


@pytest.mark.parametrize(("hidden_size", "ends"), [(16_384, JobStatus.FAILED), (64, JobStatus.SUCCEEDED)])
def test_a_job_that_does_not_fit_into_the_workers_memory_fails_with_the_estimate(
    database: Database, tmp_path: Path, hidden_size: int, ends: JobStatus
) -> None:
    """Queued when a larger worker lived, say."""
    corpus = corpora.add_corpus(database, [TEXT], "hamlet").corpus
    model, training = ModelConfig(hidden_size=hidden_size).as_dict(), TrainingConfig(steps=10).as_dict()
    job, _ = jobs.enqueue(database, name="large", corpus_id=corpus.id, model=model, training=training)
    rig = Rig(database, tmp_path, [STARTED, Finished(10, "budget", None, None)])
    rig.run_all()
    job = jobs.get_job(database, job.id)
    assert job.status is ends
    assert len(rig.tasks) == (ends is JobStatus.SUCCEEDED), "no training is begun in vain"
    if job.error is not None:
        assert job.error["code"] == "too_much_memory"
        assert job.error["estimate_bytes"] > job.error["available_bytes"] == MEMORY_BYTES
        assert "1.0 GiB" in job.error["detail"]


def test_a_worker_whose_executor_is_lost_ends_and_claims_nothing(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    """A dispatcher whose node died would fail each job of the queue by turns."""
    rig = Rig(database, tmp_path)
    rig.executor.is_lost = lambda: True  # type: ignore[method-assign]
    rig.executor.places = lambda: 0  # type: ignore[method-assign]
    with pytest.raises(DeviceLost):
        rig.runner.run()
    assert jobs.get_job(database, job_id).status is JobStatus.QUEUED


def test_a_job_is_not_refused_by_a_worker_that_does_not_know_its_memory(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    """A dispatcher whose nodes have not joined yet."""
    rig = Rig(database, tmp_path, [STARTED, Finished(10, "budget", None, None)])
    rig.executor.memory_bytes = None
    rig.run_all()
    assert jobs.get_job(database, job_id).status is JobStatus.SUCCEEDED


def test_an_error_while_recording_ends_the_attempt_and_not_the_job(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    rig = Rig(database, tmp_path, [STARTED, DatabaseBusy(15)], [STARTED, saved(10), Finished(10, "budget", 10, 2.1)])
    rig.run_all()
    job = jobs.get_job(database, job_id)
    assert (job.status, job.attempt) == ("succeeded", 2)
    assert rig.children[0].closed


def test_a_child_that_pauses_because_the_worker_stops_costs_no_crash_and_leaves_the_job_queued(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    paused = [STARTED, Saved(3, None, None, False, None, b"resume point"), Finished(3, "paused", None, None)]
    rig = Rig(database, tmp_path, *[paused] * 4)
    rig.stop.set()
    rig.run_all()
    job = jobs.get_job(database, job_id)
    assert (job.status, job.attempt) == ("queued", 4)


def test_a_child_that_pauses_while_it_loads_leaves_the_older_resume_point(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    loading = [Ticked("loading", 0), Finished(0, "paused", None, None)]
    again = [Started(5, 10, 1234, 20, 1900, 200, "cpu", "float32"), Finished(10, "budget", 5, 2.1)]
    rig = Rig(database, tmp_path, loading, [STARTED, saved(5), ChildCrashed(-9)], loading, loading, loading, again)
    rig.run_all()
    assert [task.resume_point for task in rig.tasks] == [None, None, *[b"resume point 5"] * 4]
    assert jobs.get_job(database, job_id).status == "succeeded"


def test_a_runner_that_lost_its_lease_writes_nothing_more(database: Database, job_id: str, tmp_path: Path) -> None:
    claim = claims.claim_next(database, "worker-1")
    assert claim is not None
    claims.release(database, claim)
    other = claims.claim_next(database, "worker-2")
    assert other is not None
    rig = Rig(database, tmp_path, [STARTED, progress(5), Finished(5, "budget", None, None)])
    rig.runner._attempts.run(claim)
    job = jobs.get_job(database, job_id)
    assert (job.status, job.attempt, job.worker) == ("running", other.attempt, "worker-2")
    assert metrics.read_metrics(database, job_id) == []


def test_the_lease_is_kept_until_the_end_is_recorded_and_a_beat_after_it_is_no_error(
    database: Database,
    job_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    beaten, real_renew, real_finish = threading.Event(), claims.renew, claims.finish

    def renew(*told: Any) -> claims.Wanted:
        try:
            return real_renew(*told)
        finally:
            beaten.set()

    def finish(*told: Any) -> None:
        for _ in range(2):  # a lock that lasts, say
            beaten.clear()
            assert beaten.wait(20), "nobody keeps the lease"
        real_finish(*told)
        for _ in range(2):
            beaten.clear()
            assert beaten.wait(20)

    monkeypatch.setattr(claims, "renew", renew)
    monkeypatch.setattr(claims, "finish", finish)
    rig = Rig(database, tmp_path, [STARTED, Finished(10, "budget", None, None)], lease_seconds=2)
    rig.run_all()
    assert jobs.get_job(database, job_id).status == "succeeded"
    assert [record for record in caplog.records if record.levelname != "INFO"] == []
    assert rig.children[0].kills == 0


def test_what_cannot_be_stored_is_not_tried_without_a_pause_while_the_worker_stops(
    database: Database, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat, which ends the child, may wait for the lock just then."""
    rig = Rig(database, tmp_path, [STARTED])
    tries: list[int] = []
    often, real_renew = threading.Event(), claims.renew

    def record_started(*_: object) -> None:
        tries.append(1)
        rig.stop.set()
        if len(tries) > 20:
            often.set()
        raise DiskFull

    def renew(*told: Any) -> claims.Wanted:
        often.wait(1.0)
        return real_renew(*told)

    monkeypatch.setattr(claims, "record_started", record_started)
    monkeypatch.setattr(claims, "renew", renew)
    rig.run_all()
    assert not often.is_set()
    assert jobs.get_job(database, job_id).status == "queued"


def test_a_worker_that_cannot_say_that_it_leaves_ends_all_the_same(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskFull

    rig = Rig(database, tmp_path)
    rig.stop.set()
    monkeypatch.setattr(workers, "leave", full)
    rig.runner.run()


def test_a_job_for_whose_text_there_is_no_room_keeps_no_other_waiting(
    database: Database, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpora.get_corpus(database, "hamlet")
    plan = {"model": ModelConfig().as_dict(), "training": TrainingConfig(steps=10).as_dict()}
    small, _ = jobs.enqueue(database, name="small", corpus_id=corpus.id, **plan)
    rig = Rig(database, tmp_path, [STARTED, Finished(10, "budget", None, None)])
    real = attempts.prepare

    def prepare_small(database: Database, claim: claims.Claim, *told: Any, **more: Any) -> TrainingTask:
        if claim.job.id == job_id:
            raise OSError(errno.ENOSPC, "No space left on device")
        task = real(database, claim, *told, **more)
        rig.stop.set()
        return task

    monkeypatch.setattr(attempts, "prepare", prepare_small)
    monkeypatch.setattr(attempts, "ROOM_SECONDS", 0.0)
    monkeypatch.setattr(postponed, "FIRST_SECONDS", 60.0)
    too_long = threading.Timer(20, rig.stop.set)
    too_long.start()
    rig.runner.run()
    too_long.cancel()
    assert jobs.get_job(database, small.id).status == "succeeded"
    large = jobs.get_job(database, job_id)
    assert (large.status, large.attempt) == ("queued", 1)


def continued(database: Database, file: bytes = b"checkpoint") -> tuple[str, trained_models.Checkpoint]:
    """A job that starts from the checkpoint of an uploaded model; its id, and the checkpoint."""
    info = {"config": {}, "vocabulary_size": 5, "parameters": 5, "step": 70}
    trained_models.add_model(database, blobs.write_blob(database, [file]), "origin", info)
    order = jobs.Order("child", ModelConfig().as_dict(), TrainingConfig(steps=10).as_dict(), new_characters=0)
    corpora.add_corpus(database, [b"to be, or not to be\n" * 9], "plays")
    job, _ = jobs.enqueue_planned(database, "plays", lambda _: order, from_checkpoint="origin")
    return job.id, trained_models.find_checkpoint(database, "origin@70")[1]


def test_a_job_that_starts_from_a_checkpoint_gets_its_file_at_every_attempt(database: Database, tmp_path: Path) -> None:
    job_id, _ = continued(database)
    rig = Rig(
        database,
        tmp_path,
        [STARTED, saved(0), ChildCrashed(-9)],
        [STARTED, Finished(10, "budget", 0, 2.1)],
    )
    rig.run_all()
    assert [task.from_checkpoint for task in rig.tasks] == [b"checkpoint"] * 2
    assert [task.resume_point for task in rig.tasks] == [None, b"resume point 0"]
    assert jobs.get_job(database, job_id).status == "succeeded"


def test_a_checkpoint_damaged_while_the_job_waited_fails_it_at_once_and_is_not_used_again(
    database: Database, tmp_path: Path
) -> None:
    job_id, checkpoint = continued(database)
    damage(database, checkpoint.blob_id, b"damaged")
    rig = Rig(database, tmp_path, [])
    rig.run_all()
    job = jobs.get_job(database, job_id)
    assert (job.status, job.attempt, rig.tasks) == ("failed", 1, [])
    assert job.error is not None
    assert job.error["code"] == "checkpoint_unusable"
    assert str(job.from_checkpoint) in job.error["detail"]
    assert trained_models.list_checkpoints(database, "origin")[0].corrupted


def test_a_folder_that_is_being_made_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "attempt-without-lock").mkdir()
    assert workspace.sweep(tmp_path) == 0
    assert (tmp_path / "attempt-without-lock").is_dir()


def test_a_starting_worker_sweeps_what_crashed_ones_left_and_tells_what_it_does(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    told: list[str | None] = []

    class Watching(Rig):
        def _start(self, task: TrainingTask) -> ScriptedChild:
            self.stop.set()
            told.append(self.runner._attempts.oldest())
            return super()._start(task)

    rig = Watching(database, tmp_path, [STARTED, Finished(10, "budget", None, None)])
    left = rig.folder / "attempt-left"
    left.mkdir(parents=True)
    (left / workspace.LOCK_NAME).touch()
    rig.runner.run()
    assert list(rig.folder.iterdir()) == []
    assert told == [job_id]
    assert jobs.get_job(database, job_id).status == "succeeded"
    assert workers.list_workers(database) == []


def test_an_idle_worker_sweeps_what_others_left_that_do_not_come_back(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SWEEP_SECONDS", 0.1)
    rig = Rig(database, tmp_path)
    running = threading.Thread(target=rig.runner.run)
    running.start()
    try:
        left = rig.folder / "attempt-left"
        left.mkdir(parents=True)
        (left / workspace.LOCK_NAME).touch()
        wait_for("the folder to be gone", lambda: not left.exists() or None)
    finally:
        rig.stop.set()
        running.join()


def test_folders_of_crashed_workers_are_swept_and_those_in_use_stay(tmp_path: Path) -> None:
    left = tmp_path / "attempt-left"
    left.mkdir()
    (left / workspace.LOCK_NAME).touch()
    with workspace.attempt_folder(tmp_path) as used:
        assert workspace.sweep(tmp_path) == 1
        assert used.is_dir()
        assert not left.exists()
    assert not used.exists()


def test_a_cuda_device_on_which_no_kernel_runs_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("worker.device._fault", lambda device: "CUDA error: device lost" if "cuda" in device else "")
    assert choose_device("auto") == "cpu"
    assert choose_device("cpu") == "cpu"
    with pytest.raises(RuntimeError, match="device lost"):
        choose_device("cuda")


def test_a_device_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="meta"):
        choose_device("meta")


def test_training_uses_the_cores_that_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 4, 5})
    assert OwnDevice("cpu", MEMORY_BYTES, None).threads == 3
    assert OwnDevice("cpu", MEMORY_BYTES, 2).threads == 2
