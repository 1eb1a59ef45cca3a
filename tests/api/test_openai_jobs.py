"""OpenAI's dialect for files, jobs and models, spoken by OpenAI's own client."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from app.store import claims, trained_models
from app.store.job_state import JobStatus
from app.store.jobs import get_job, list_jobs
from tests.api.generating import store_model, tiny_checkpoint
from tests.api.openai_clients import client_of, refused
from tests.api.service import TEXT, Service


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with client_of(service.http) as made:
        yield made


def upload(client: openai.OpenAI, text: bytes = TEXT, name: str = "hamlet.txt") -> str:
    return client.files.create(file=(name, text), purpose="fine-tune").id


def test_a_file_is_a_corpus(client: openai.OpenAI, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "my play.txt"
    path.write_bytes(TEXT)
    with path.open("rb") as file:
        made = client.files.create(file=file, purpose="fine-tune")

    corpus = service.http.get(f"/corpora/{made.id}").json()
    assert (corpus["id"], corpus["bytes"], corpus["name"]) == (made.id, len(TEXT), "my-play")
    assert (made.object, made.filename, made.purpose, made.status) == ("file", "my-play.txt", "fine-tune", "processed")
    assert isinstance(made.created_at, int)
    assert client.files.retrieve(made.id) == client.files.retrieve("my-play") == made
    assert client.files.wait_for_processing(made.id) == made
    assert client.files.content(made.id).read() == TEXT
    assert client.files.create(file=TEXT, purpose="fine-tune").id == made.id, "the same bytes are the same file"


def test_files_are_listed_page_by_page_either_way(client: openai.OpenAI) -> None:
    ids = [upload(client, b"text number %d" % number) for number in range(5)]

    assert [file.id for file in client.files.list()] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == ids
    assert [file.id for file in client.files.list(purpose="fine-tune", limit=10_000)] == ids[::-1]
    assert list(client.files.list(purpose="batch")) == []
    page = client.files.list(limit=2).to_dict()
    assert page["object"] == "list"
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[4], ids[3], True)
    assert client.files.list(limit=5).has_more is False


def test_a_deleted_file_is_gone(client: openai.OpenAI) -> None:
    made = upload(client)
    gone = client.files.delete(made)
    assert (gone.id, gone.deleted, gone.object) == (made, True, "file")
    with refused(404):
        client.files.retrieve(made)


def test_a_file_that_a_job_needs_stays(client: openai.OpenAI) -> None:
    made = upload(client)
    client.fine_tuning.jobs.create(model="auto", training_file=made)
    with refused(400, says="cancel it first"):
        client.files.delete(made)


def test_files_that_cannot_be_taken_are_refused_by_name(client: openai.OpenAI) -> None:
    with refused(400, param="purpose"):
        client.files.create(file=TEXT, purpose="batch")
    with refused(400, param="file", code="not_text"):
        client.files.create(file=b"\xff\xff", purpose="fine-tune")
    with refused(400, param="expires_after", says="until it is deleted"):
        client.files.create(file=TEXT, purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600})
    with refused(413):
        client.files.create(file=b"x" * 200_000, purpose="fine-tune")


def test_a_job_is_queued_with_every_setting_resolved(client: openai.OpenAI, service: Service) -> None:
    file = upload(client)
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file="hamlet",
        suffix="short",
        seed=7,
        hyperparameters={"n_epochs": 2, "batch_size": 16, "learning_rate_multiplier": 0.5},
        extra_body={"network": {"dropout": 0.3}, "training": {"sequence_length": 16}},
    )

    own = service.http.get(f"/jobs/{job.id}").json()
    assert (own["name"], own["corpus"], own["status"]) == ("short", file, "queued")
    wanted = {"epochs": 2, "batch_size": 16, "sequence_length": 16, "seed": 7, "learning_rate": 0.005}
    assert {name: own["training"][name] for name in wanted} == wanted
    assert (own["model"]["cell"], own["model"]["hidden_size"], own["model"]["dropout"]) == ("gru", 256, 0.3)
    assert (job.object, job.status, job.model, job.training_file, job.seed) == (
        *("fine_tuning.job", "queued", "tiny", file, 7),
    )
    assert job.hyperparameters.to_dict() == {"n_epochs": 2, "batch_size": 16, "learning_rate_multiplier": 0.5}
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens, job.error) == (None, None, None, None)
    assert (job.result_files, job.validation_file, job.organization_id) == ([], None, "charsmith")
    assert client.fine_tuning.jobs.retrieve(job.id) == client.fine_tuning.jobs.retrieve("short") == job


def test_the_method_may_hold_the_hyperparameters(client: openai.OpenAI) -> None:
    upload(client)
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}}}
    job = client.fine_tuning.jobs.create(model="auto", training_file="hamlet", method=method)
    assert job.hyperparameters.to_dict() == {"n_epochs": 3, "batch_size": 32, "learning_rate_multiplier": 1}
    assert job.method is not None
    assert job.method.type == "supervised"


def test_a_job_may_go_on_from_a_model(client: openai.OpenAI, service: Service) -> None:
    upload(client)
    model = store_model(service.database, "elder", tiny_checkpoint(characters="".join(sorted(set(TEXT.decode())))))
    for name in (model.id, "elder", "elder@70"):
        job = client.fine_tuning.jobs.create(model=name, training_file="hamlet")
        assert job.model == f"{model.id}@70"
        assert get_job(service.database, job.id).from_checkpoint == f"{model.id}@70"


def test_a_size_comes_before_a_model_of_its_name(client: openai.OpenAI, service: Service) -> None:
    upload(client)
    model = store_model(service.database, "tiny", tiny_checkpoint(characters="".join(sorted(set(TEXT.decode())))))
    jobs = client.fine_tuning.jobs
    assert jobs.create(model="tiny", training_file="hamlet").model == "tiny"
    assert jobs.create(model=model.id, training_file="hamlet").model == f"{model.id}@70"


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"training_file": "nobody"}, "training_file", "no corpus"),
    ({"model": "nobody"}, "model", "no model"),
    ({"suffix": "a b"}, "suffix", "a name is"),
    ({"seed": -1}, "seed", "must be"),
    ({"hyperparameters": {"n_epochs": -1}}, "hyperparameters.n_epochs", "must be a number"),
    ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs", "must be a number"),
    ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size", "must be a whole number"),
    (
        {"hyperparameters": {"learning_rate_multiplier": 1e9}},
        "hyperparameters.learning_rate_multiplier",
        "must be a number from 1.25e-07 to 1.25e+03, not 1e+09",
    ),
    ({"hyperparameters": {"beta": 1}}, "hyperparameters.beta", "unknown"),
    (
        {"hyperparameters": {"n_epochs": 1}, "extra_body": {"training": {"epochs": 2}}},
        "hyperparameters.n_epochs",
        "same",
    ),
    ({"method": {"type": "dpo"}}, "method.type", "supervised"),
    ({"validation_file": "hamlet"}, "validation_file", "validation_fraction"),
    ({"metadata": {"who": 1}}, "metadata.who", "must be a text"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "16"),
    ({"metadata": {"a" * 65: "I"}}, "metadata." + "a" * 65, "64"),
    ({"metadata": {'"': "I"}}, 'metadata."', "quotation mark"),
    ({"metadata": {"who": "I" * 513}}, "metadata.who", "512"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "is not done here"),
    ({"extra_body": {"network": {"hidden_size": 0}}}, "network.hidden_size", "must be a whole number"),
    ({"extra_body": {"training": {"steps": 1, "minutes": 1}}}, "training.minutes", "one budget"),
    ({"extra_body": {"trainning": {}}}, "trainning", "did you mean training?"),
]


@pytest.mark.parametrize(("wish", "param", "says"), REFUSED)
def test_what_cannot_be_is_refused_by_the_name_that_the_client_used(
    client: openai.OpenAI, service: Service, wish: dict[str, Any], param: str, says: str
) -> None:
    upload(client)
    with refused(404 if "no " in says else 400, param=param, says=says):
        client.fine_tuning.jobs.create(**{"model": "auto", "training_file": "hamlet"} | wish)
    assert list_jobs(service.database, 10).data == []


def test_a_network_too_large_and_a_text_too_short_are_told_in_its_words(client: openai.OpenAI) -> None:
    upload(client, b"ab", "short.txt")
    with refused(400, param="training_file", code="corpus_too_short"):
        client.fine_tuning.jobs.create(model="tiny", training_file="short")
    upload(client)
    with refused(400, param="network", code="too_much_memory"):
        huge = {"network": {"hidden_size": 16_384, "num_layers": 16}}
        client.fine_tuning.jobs.create(model="auto", training_file="hamlet", extra_body=huge)


def test_an_idempotency_key_gives_the_first_job_again(client: openai.OpenAI) -> None:
    upload(client)
    create, same = client.fine_tuning.jobs.create, {"Idempotency-Key": "once"}
    first = create(model="auto", training_file="hamlet", extra_headers=same)
    assert create(model="auto", training_file="hamlet", extra_headers=same).id == first.id
    with refused(400, code="conflict"):
        create(model="tiny", training_file="hamlet", extra_headers=same)


def test_jobs_are_listed_page_by_page(client: openai.OpenAI, service: Service) -> None:
    ids = [service.enqueue(f"job-{number}").id for number in range(3)]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=1)] == ids[::-1]
    assert client.fine_tuning.jobs.list(limit=2).has_more is True
    assert client.fine_tuning.jobs.list(limit=3).has_more is False
    assert [job.id for job in client.fine_tuning.jobs.list(metadata=None)] == ids[::-1]


def test_jobs_are_found_by_their_metadata(client: openai.OpenAI, http: httpx.Client) -> None:
    upload(client)

    def ordered(**metadata: str) -> str:
        return client.fine_tuning.jobs.create(model="tiny", training_file="hamlet", metadata=metadata).id

    mine, ours, nobodys = ordered(who="I", why="a.b [c] = 'ä'"), ordered(who="we", why=""), ordered()

    def found(metadata: dict[str, str]) -> list[str]:
        return [job.id for job in client.fine_tuning.jobs.list(metadata=metadata)]

    assert found({"who": "I"}) == found({"who": "I", "why": "a.b [c] = 'ä'"}) == [mine]
    assert found({"why": ""}) == [ours]
    assert found({"who": "I", "why": ""}) == found({"where": "I"}) == []
    without = http.get("/v1/fine_tuning/jobs?metadata=null").json()["data"]
    assert [job["id"] for job in without] == [nobodys]
    assert client.fine_tuning.jobs.retrieve(mine).metadata == {"who": "I", "why": "a.b [c] = 'ä'"}
    assert http.get(f"/jobs/{ours}").json()["metadata"] == {"who": "we", "why": ""}
    assert http.get(f"/jobs/{nobodys}").json()["metadata"] == {}
    for call in ("/v1/fine_tuning/jobs?metadata=null&metadata[a]=b", "/v1/fine_tuning/jobs?metadata=all"):
        assert http.get(call).json()["error"]["param"] == "metadata"
    for call in ('/v1/fine_tuning/jobs?metadata["]=b', "/v1/fine_tuning/jobs?limit[a]=b", "/v1/models?metadata[a]=b"):
        assert http.get(call).status_code == 400


def test_a_waiting_job_pauses_resumes_and_is_cancelled_once(client: openai.OpenAI, service: Service) -> None:
    job, jobs = service.enqueue().id, client.fine_tuning.jobs
    assert jobs.pause(job).status == "paused"  # type: ignore[comparison-overlap]
    assert jobs.resume(job).status == "queued"
    ended = jobs.cancel(job)
    assert (ended.status, ended.fine_tuned_model) == ("cancelled", None)
    assert ended.finished_at is not None
    for again in (jobs.cancel, jobs.pause, jobs.resume):
        with refused(400, code="conflict"):
            again(job)


def test_cancelling_a_finished_job_is_not_tried_again(service: Service) -> None:
    """OpenAI's client repeats what a 409 answered."""
    job = service.enqueue().id
    with client_of(service.http, retries=2) as patient:
        patient.fine_tuning.jobs.cancel(job)
        with refused(400) as raised:
            patient.fine_tuning.jobs.cancel(job)
    assert "x-stainless-retry-count" in raised.value.request.headers
    assert raised.value.request.headers["x-stainless-retry-count"] == "0"


def test_a_running_job_runs_until_its_worker_has_ended_it(client: openai.OpenAI, service: Service) -> None:
    job = service.enqueue().id
    service.claim()
    assert client.fine_tuning.jobs.cancel(job).status == "running"
    assert get_job(service.database, job).cancel_requested


def trained(service: Service) -> tuple[str, claims.Claim]:
    """A job that runs and has three checkpoints, of which the second is the best."""
    job = service.enqueue().id
    claim = service.claim()
    claims.record_started(service.database, claim, {"train_characters": 1000})
    progress = {"step": 1, "epoch": 1.5, "train_loss": 2.5, "eta_seconds": 30.0, "fraction": 0.5}
    claims.record_progress(service.database, claim, progress)
    for step, val_loss in ((1, 2.4), (2, 2.1), (3, 2.2)):
        service.evaluate_and_save(claim, step, val_loss)
    return job, claim


def test_a_job_tells_its_events_newest_first(client: openai.OpenAI, service: Service) -> None:
    job, _ = trained(service)
    told = list(client.fine_tuning.jobs.list_events(job, limit=2))

    assert len({event.id for event in told}) == len(told) == 9
    assert (told[-1].message, told[-1].type, told[-1].level) == ("The job is queued.", "message", "info")
    assert told[0].message == "Step 3: a checkpoint was stored."
    assert [event.type for event in told].count("metrics") == 4
    assert told[6].message == "Step 1: training loss 2.5000"
    assert all(event.object == "fine_tuning.job.event" and isinstance(event.created_at, int) for event in told)
    with refused(400, param="after"):
        client.fine_tuning.jobs.list_events(job, after="nothing")


def test_a_job_tells_its_checkpoints_each_of_which_is_a_model(client: openai.OpenAI, service: Service) -> None:
    job, _ = trained(service)
    found = list(client.fine_tuning.jobs.checkpoints.list(job, limit=1))

    model = get_job(service.database, job).model_id
    assert [(one.step_number, one.metrics.valid_loss) for one in found] == [(3, 2.2), (2, 2.1), (1, 2.4)]
    assert [one.fine_tuned_model_checkpoint for one in found] == [f"{model}@{step}" for step in (3, 2, 1)]
    assert found[0].fine_tuning_job_id == job
    assert client.models.retrieve(found[0].fine_tuned_model_checkpoint).id == f"{model}@3"
    assert client.models.retrieve(found[1].id).id == f"{model}@2"
    with refused(400, param="after"):
        client.fine_tuning.jobs.checkpoints.list(job, after="nothing")


def test_a_job_names_its_model_when_it_is_finished(client: openai.OpenAI, service: Service) -> None:
    job, claim = trained(service)
    running = client.fine_tuning.jobs.retrieve(job)
    assert (running.status, running.fine_tuned_model) == ("running", None)
    assert running.estimated_finish is not None
    claims.finish(service.database, claim, JobStatus.SUCCEEDED)
    ended = client.fine_tuning.jobs.retrieve(job)

    assert (ended.status, ended.trained_tokens, ended.estimated_finish) == ("succeeded", 1500, None)
    assert ended.fine_tuned_model is not None
    assert client.models.retrieve(ended.fine_tuned_model).id == get_job(service.database, job).model_id


def test_a_failed_job_says_why(client: openai.OpenAI, service: Service) -> None:
    job = service.enqueue().id
    error = {"code": "diverged", "detail": "the loss is not finite"}
    claims.finish(service.database, service.claim(), JobStatus.FAILED, error)
    failed = client.fine_tuning.jobs.retrieve(job)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.message) == ("failed", "diverged", "the loss is not finite")
    newest = client.fine_tuning.jobs.list_events(job).data[0]
    assert newest.level == "error"
    assert "the loss is not finite" in newest.message


def test_models_are_those_that_can_write(client: openai.OpenAI, service: Service) -> None:
    stored = [store_model(service.database, name, tiny_checkpoint()) for name in ("one", "two", "two")]
    listed = list(client.models.list())

    assert [model.id for model in listed] == [model.id for model in stored[::-1]]
    assert {model.owned_by for model in listed} == {"charsmith"}
    assert all(client.models.retrieve(model.id) == model for model in listed)
    assert client.models.retrieve("two").id == stored[2].id, "a name means the newest"
    gone = client.models.delete(stored[2].id)
    assert (gone.id, gone.deleted, gone.object) == (stored[2].id, True, "model")
    assert client.models.retrieve("two").id == stored[1].id
    _, checkpoint = trained_models.find_checkpoint(service.database, "one")
    trained_models.quarantine(service.database, checkpoint)
    assert [model.id for model in client.models.list()] == [stored[1].id]


@pytest.mark.parametrize("name", ["nobody", "a/b", "a%b", "a@b", "日", "model_" + "a" * 26, "x" * 500])
def test_a_model_that_is_not_there_is_not_found(client: openai.OpenAI, name: str) -> None:
    with refused(404):
        client.models.retrieve(name)
    with refused(404, code="model_not_found"):
        client.models.delete(name)


def test_a_size_is_told_from_a_model(client: openai.OpenAI) -> None:
    with refused(404, code="model_not_found", says="a size of network"):
        client.models.retrieve("auto")


def test_the_asynchronous_client_pages_alike(service: Service) -> None:
    ids = [service.enqueue(f"job-{number}").id for number in range(3)]

    async def listed() -> list[str]:
        own = openai.DefaultAsyncHttpxClient(trust_env=False)
        url = f"{service.http.base_url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="any", http_client=own) as client:
            return [job.id async for job in client.fine_tuning.jobs.list(limit=1)]

    assert asyncio.run(listed()) == ids[::-1]
