"""Queueing, looking at, cancelling, pausing, resuming and deleting jobs over HTTP."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.store import claims, workers
from app.store.job_state import JobStatus
from models.config import ModelConfig, TrainingConfig
from tests.api.service import Service, assert_problem, running, walk

FIELDS = [
    "id",
    "status",
    "corpus",
    "model",
    "training",
    "progress",
    "best",
    "error",
    "attempt",
    "created_at",
    "started_at",
    "finished_at",
    "place",
    "name",
    "model_id",
    "model_name",
    "from_checkpoint",
    "new_characters",
    "vocabulary_size",
    "cancel_requested",
    "pause_requested",
]
PROGRESS = [
    "step",
    "steps",
    "epoch",
    "fraction",
    "train_loss",
    "val_loss",
    "bits_per_character",
    "characters_per_second",
    "eta_seconds",
    "memory_bytes",
    "setbacks",
    "machines",
]


def post(service: Service, **request: Any) -> httpx.Response:
    return service.http.post("/jobs", json={"corpus": "hamlet", **request})


@pytest.fixture
def uploaded(service: Service) -> Service:
    service.upload(name="hamlet")
    return service


def test_only_the_corpus_is_required_and_every_setting_is_answered(uploaded: Service) -> None:
    answer = post(uploaded)

    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert job.keys() >= set(FIELDS)
    assert list(job["progress"]) == PROGRESS
    assert (job["status"], job["place"], job["name"]) == ("queued", 1, "hamlet")
    assert [job[name] for name in ("from_checkpoint", "new_characters", "vocabulary_size")] == [None] * 3
    assert job["corpus"] == uploaded.http.get("/corpora/hamlet").json()["id"]
    assert job["training"] == TrainingConfig(learning_rate=0.008).as_dict()
    assert job["model"] == ModelConfig(hidden_size=384, dropout=0.4).as_dict()  # a small corpus
    assert uploaded.http.get(f"/jobs/{job['id']}").json() == job


def test_settings_that_are_given_stand_before_the_presets(uploaded: Service) -> None:
    model = {"cell": "lstm", "num_layers": 3, "dropout": None}
    job = post(uploaded, preset="large", model=model, training={"steps": 7}, name="mine").json()

    assert job["name"] == "mine"
    assert job["model"] == ModelConfig(cell="lstm", hidden_size=1024, num_layers=3, embedding_size=128).as_dict()
    assert job["training"] == TrainingConfig(steps=7, learning_rate=0.003).as_dict()


def test_empty_and_missing_sections_are_the_same(uploaded: Service) -> None:
    answers = [post(uploaded), post(uploaded, model={}, training=None), post(uploaded, model=None, training={})]

    models = [(answer.json()["model"], answer.json()["training"]) for answer in answers]
    assert models[0] == models[1] == models[2]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"model": {"hidden_size": 0}}, "model.hidden_size"),
        ({"model": {"hidden_size": "512"}}, "model.hidden_size"),
        ({"model": {"hidden_size": 10**4000}}, "model.hidden_size"),
        ({"model": {"hidden_size": True}}, "model.hidden_size"),
        ({"model": {"cell": "transformer"}}, "model.cell"),
        ({"model": {"dropout": 1}}, "model.dropout"),
        ({"model": {"width": 3}}, "model.width"),
        ({"model": 7}, "model"),
        ({"training": {"steps": 1, "epochs": 1}}, "training.steps"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate"),
        ({"training": {"seed": 2**63}}, "training.seed"),
        ({"training": {"minutes": 10**400}}, "training.minutes"),
        ({"training": {"steps": 1.5}}, "training.steps"),
        ({"preset": "huge"}, "preset"),
        ({"name": "a b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "job_" + "a" * 26}, "name"),
        ({"from_checkpoint": ""}, "from_checkpoint"),
        ({"from_checkpoint": 7}, "from_checkpoint"),
        ({"corpus": ""}, "corpus"),
        ({"corpus": 3}, "corpus"),
        ({"corpus": None}, "corpus"),
        ({"training": {"sequence_length": 4096}}, "corpus"),
        ({"model": {"hidden_size": 16384, "num_layers": 16}}, "model"),
    ],
)
def test_a_setting_out_of_range_is_refused_naming_it_and_nothing_is_queued(
    uploaded: Service, request_: dict[str, Any], field: str
) -> None:
    assert_problem(post(uploaded, **request_), 422, field)
    assert uploaded.http.get("/jobs").json()["data"] == []


def test_a_corpus_that_is_too_short_is_refused_with_the_minimum(service: Service) -> None:
    service.upload(b"x" * 35, name="short")
    service.upload(b"y" * 36, name="enough")
    problem = assert_problem(service.http.post("/jobs", json={"corpus": "short"}), 422, "corpus")

    assert problem["code"] == "corpus_too_short"
    assert problem["minimum_characters"] == 36  # 33 to train on, 3 to validate with
    assert "36" in problem["detail"]
    assert service.http.post("/jobs", json={"corpus": "enough"}).status_code == 202


def test_a_network_too_large_for_the_machine_is_refused_with_the_estimate(uploaded: Service) -> None:
    problem = assert_problem(post(uploaded, model={"cell": "lstm", "hidden_size": 16384, "num_layers": 16}), 422)

    assert problem["code"] == "too_much_memory"
    assert problem["estimate_bytes"] > problem["available_bytes"]
    assert "GiB" in problem["detail"]


def test_a_text_of_a_hundred_thousand_characters_is_taken_and_counts_in_the_estimate(data_dir: Path) -> None:
    distinct = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 250_000) if chr(code).isprintable())[:100_000]
    with running(Settings(data_dir=data_dir)) as service:
        uploaded = service.upload((distinct * 2).encode(), name="hamlet").json()
        assert uploaded["vocabulary_size"] == 100_000
        assert post(service).status_code == 202
        wide = {"hidden_size": 16_384, "embedding_size": 16_384}
        problem = assert_problem(post(service, model=wide, training={"batch_size": 4096}), 422)
    assert problem["code"] == "too_much_memory"


GPU = 140 * 2**30


@pytest.mark.parametrize(
    ("announced", "status"),
    [
        ({"large": ("cuda", GPU), "small": ("cpu", 2**20)}, 202),
        ({"small": ("cpu", 2**20)}, 422),
        ({"silent": ("cpu", None)}, 202),
        ({}, 202),
    ],
    ids=["a GPU", "a small worker", "a worker that does not say", "no worker"],
)
def test_a_job_is_measured_by_the_largest_worker_that_lives_and_by_this_machine_without_one(
    own_service: Service, announced: dict[str, tuple[str, int | None]], status: int
) -> None:
    """The service of docker-compose.yml has less memory than its worker."""
    own_service.upload(name="hamlet")
    own_service.app.state.watch.look()
    for name, (device, memory) in announced.items():
        workers.announce(own_service.database, name, device, memory_bytes=memory)
    own_service.app.state.watch.look()

    answer = post(own_service, model={"hidden_size": 512})

    assert answer.status_code == status
    if status == 422:
        assert answer.json()["available_bytes"] == 2**20


@pytest.mark.parametrize(
    ("devices", "hidden_size"), [(["cuda"], 512), (["cpu"], 384), (["cuda", "cpu"], 384), ([], 384)]
)
def test_a_minute_of_a_large_text_trains_a_medium_network_where_only_gpus_train(
    data_dir: Path, devices: list[str], hidden_size: int
) -> None:
    with running(Settings(data_dir=data_dir)) as service:
        service.upload(b"abc\n" * 30_000, name="hamlet")
        service.app.state.watch.look()
        for number, device in enumerate(devices):
            workers.announce(service.database, f"w{number}", device, memory_bytes=GPU)
        service.app.state.watch.look()

        assert post(service).json()["model"]["hidden_size"] == hidden_size


def test_a_job_larger_than_the_service_is_queued_for_a_worker_that_can_train_it(
    own_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.feasibility.available_memory_bytes", lambda: 2**20)
    own_service.upload(name="hamlet")
    assert_problem(post(own_service), 422, "model")

    own_service.app.state.watch.look()
    workers.announce(own_service.database, "w1", "cuda", memory_bytes=GPU)
    own_service.app.state.watch.look()
    assert post(own_service).status_code == 202


def test_an_unknown_corpus_answers_404(uploaded: Service) -> None:
    assert_problem(uploaded.http.post("/jobs", json={"corpus": "macbeth"}), 404)


def test_the_same_idempotency_key_gives_the_first_job_again(uploaded: Service) -> None:
    def ask(**request: Any) -> httpx.Response:
        body = {"corpus": "hamlet", **request}
        return uploaded.http.post("/jobs", json=body, headers={"Idempotency-Key": "key 1"})

    first = ask(training={"steps": 5, "seed": 1}, name="once")
    again = ask(name="once", training={"seed": 1, "steps": 5})

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert_problem(ask(name="twice"), 409)
    assert len(uploaded.http.get("/jobs").json()["data"]) == 1


def test_an_idempotency_key_is_honoured_whatever_became_of_the_corpus(uploaded: Service) -> None:
    def ask(key: str) -> httpx.Response:
        body = {"corpus": "hamlet", "training": {"steps": 5}}
        return uploaded.http.post("/jobs", json=body, headers={"Idempotency-Key": key})

    first = ask("key 1").json()
    uploaded.upload(b"far too short", name="hamlet")  # the name is another corpus' now, with which no job works
    assert_problem(ask("key 2"), 422, "corpus")
    assert ask("key 1").json()["id"] == first["id"]

    uploaded.http.post(f"/jobs/{first['id']}/cancel")
    for _ in range(2):
        assert uploaded.http.delete("/corpora/hamlet").status_code == 204
    assert_problem(ask("key 2"), 404)
    again = ask("key 1")
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (202, first["id"], "cancelled")
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_idempotency_key_of_no_length_or_too_much_is_refused(uploaded: Service, key: str) -> None:
    answer = uploaded.http.post("/jobs", json={"corpus": "hamlet"}, headers={"Idempotency-Key": key})

    assert_problem(answer, 422, "idempotency-key")


def test_a_full_queue_answers_429_and_when_to_come_back(uploaded: Service) -> None:
    for _ in range(uploaded.settings.max_queued_jobs):
        assert post(uploaded).status_code == 202

    answer = post(uploaded)

    assert_problem(answer, 429)
    assert int(answer.headers["retry-after"]) > 0


def test_places_in_the_queue_count_from_the_oldest(uploaded: Service) -> None:
    ids = [post(uploaded).json()["id"] for _ in range(3)]

    assert [uploaded.http.get(f"/jobs/{id_}").json()["place"] for id_ in ids] == [1, 2, 3]
    uploaded.http.post(f"/jobs/{ids[0]}/cancel")
    assert [uploaded.http.get(f"/jobs/{id_}").json()["place"] for id_ in ids] == [None, 1, 2]


def test_a_walk_through_the_pages_sees_each_job_once_also_of_one_status(service: Service) -> None:
    ids = [service.enqueue(f"job{n}").id for n in range(5)]
    service.http.post(f"/jobs/{ids[2]}/cancel")

    assert [job["id"] for job in walk(service.http, "/jobs", 2)] == ids[::-1]
    assert [job["id"] for job in walk(service.http, "/jobs", 2, status="cancelled")] == [ids[2]]
    assert_problem(service.http.get("/jobs?status=dreaming"), 422, "status")
    assert_problem(service.http.get("/jobs?after=job_unknown"), 422, "after")


def test_a_queued_job_is_cancelled_at_once(service: Service) -> None:
    job = service.enqueue()

    answer = service.http.post(f"/jobs/{job.id}/cancel")

    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["finished_at"] is not None


def test_cancel_of_a_running_job_answers_202_and_the_wish(service: Service) -> None:
    job = service.enqueue()
    claim = service.claim()

    answer = service.http.post(f"/jobs/{job.id}/cancel")

    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["cancel_requested"]) == ("running", True)
    assert claims.renew(service.database, claim).cancel
    claims.release(service.database, claim)
    assert service.http.get(f"/jobs/{job.id}").json()["status"] == "cancelled"


def test_a_paused_job_is_not_resumed_into_a_full_queue(service: Service) -> None:
    waiting = [service.enqueue(name=f"job-{number}") for number in range(4)]
    service.http.post(f"/jobs/{waiting[0].id}/pause")
    assert assert_problem(service.http.post(f"/jobs/{waiting[0].id}/resume"), 429)["code"] == "queue_full"
    service.claim()
    assert service.http.post(f"/jobs/{waiting[0].id}/resume").is_success


@pytest.mark.parametrize("call", ["cancel", "pause", "resume"])
def test_a_finished_job_stays_as_it_is(service: Service, call: str) -> None:
    job = service.enqueue()
    claims.finish(service.database, service.claim(), JobStatus.SUCCEEDED)
    before = service.http.get(f"/jobs/{job.id}").json()

    assert_problem(service.http.post(f"/jobs/{job.id}/{call}"), 409)
    assert service.http.get(f"/jobs/{job.id}").json() == before


def test_a_name_means_the_newest_job_of_that_name(service: Service) -> None:
    service.enqueue("same")
    newest = service.enqueue("same")
    path = "/jobs/same"

    for action in ("pause", "resume", "cancel"):
        assert service.http.post(f"{path}/{action}").json()["id"] == newest.id
    assert service.http.get(path).json()["id"] == newest.id
    for report in ("metrics", "events", "loss.png"):
        assert service.http.get(f"{path}/{report}").content == service.http.get(f"/jobs/{newest.id}/{report}").content
    assert service.http.delete(path).status_code == 204
    assert service.http.get(path).json()["id"] != newest.id


def test_a_job_is_paused_and_resumed(service: Service) -> None:
    job = service.enqueue()

    paused = service.http.post(f"/jobs/{job.id}/pause")
    assert (paused.status_code, paused.json()["status"], paused.json()["place"]) == (200, "paused", None)
    assert_problem(service.http.post(f"/jobs/{job.id}/pause"), 409)
    resumed = service.http.post(f"/jobs/{job.id}/resume")
    assert (resumed.status_code, resumed.json()["status"], resumed.json()["place"]) == (200, "queued", 1)
    assert_problem(service.http.post(f"/jobs/{job.id}/resume"), 409)


def test_pause_of_a_running_job_answers_202_and_the_wish(service: Service) -> None:
    job = service.enqueue()
    claim = service.claim()

    answer = service.http.post(f"/jobs/{job.id}/pause")

    assert (answer.status_code, answer.json()["pause_requested"]) == (202, True)
    claims.release(service.database, claim)
    assert service.http.get(f"/jobs/{job.id}").json()["status"] == "paused"


def test_a_running_job_cannot_be_deleted_a_finished_one_can(service: Service) -> None:
    job = service.enqueue()
    claim = service.claim()

    assert_problem(service.http.delete(f"/jobs/{job.id}"), 409)
    claims.finish(service.database, claim, JobStatus.SUCCEEDED)
    assert service.http.delete(f"/jobs/{job.id}").status_code == 204
    assert_problem(service.http.get(f"/jobs/{job.id}"), 404)
    assert_problem(service.http.delete(f"/jobs/{job.id}"), 404)


def test_a_failed_job_says_why(service: Service) -> None:
    job = service.enqueue()
    error = {"code": "diverged", "detail": "the loss is not finite"}
    claims.finish(service.database, service.claim(), JobStatus.FAILED, error)

    assert service.http.get(f"/jobs/{job.id}").json()["error"] == error


@pytest.mark.parametrize("call", ["", "/metrics", "/events", "/loss.png", "/loss.svg"])
def test_an_unknown_job_answers_404_everywhere(http: httpx.Client, call: str) -> None:
    assert_problem(http.get(f"/jobs/job_{'a' * 26}{call}"), 404)
    assert_problem(http.get(f"/jobs/%00{call}"), 404)
