"""Jobs that go on from a checkpoint over HTTP: what they take from it, what they add, what keeps it there."""

from typing import Any

import httpx
import pytest

from app.presets import LARGE_VOCABULARY, SOFTMAX_SAMPLES
from app.store import claims, trained_models, vocabularies
from app.store import jobs as job_queue
from app.store.job_state import JobStatus
from models.config import ModelConfig, TrainingConfig
from tests.api.generating import ALPHABET, store_model, tiny_checkpoint
from tests.api.service import Service, assert_problem
from tests.databases import damage

TEXT = b"To be, or not to be, that is the question\n" * 20
NEW = "T,"
"""Characters of the text that a tiny checkpoint does not know."""
ORIGIN = ModelConfig("gru", 8, 1, embedding_size=4)


def post(service: Service, **request: Any) -> httpx.Response:
    return service.http.post("/jobs", json={"corpus": "hamlet", "from_checkpoint": "origin", **request})


@pytest.fixture
def staged(service: Service) -> Service:
    """A corpus `hamlet`, and a model `origin` with one checkpoint of step 70."""
    service.upload(TEXT, name="hamlet")
    store_model(service.database, "origin", tiny_checkpoint())
    return service


def test_the_network_is_the_checkpoints_and_new_characters_are_counted(staged: Service) -> None:
    origin = staged.http.get("/models/origin").json()["id"]
    answer = post(staged, training={"steps": 7})
    job = answer.json()
    assert answer.status_code == 202
    assert job["model"] == ORIGIN.as_dict()
    assert job["training"] == TrainingConfig(steps=7, learning_rate=0.01).as_dict()
    assert (job["name"], job["from_checkpoint"]) == ("hamlet", f"{origin}@70")
    assert job["new_characters"] == len(NEW) == len(set(TEXT.decode()) - set(ALPHABET))
    assert staged.http.get(f"/jobs/{job['id']}").json() == job


def test_the_characters_of_both_decide_whether_some_are_drawn(staged: Service) -> None:
    def samples(new: int, **training: int) -> int:
        text = "".join(map(chr, range(0x4E00, 0x4E00 + new)))
        staged.upload(text.encode(), name=f"many-{new}")
        job: dict[str, Any] = post(staged, corpus=f"many-{new}", training={"steps": 7, **training}).json()
        return int(job["training"]["softmax_samples"])

    new = LARGE_VOCABULARY - len(set(ALPHABET))
    assert samples(new) == 0
    assert samples(new + 1) == SOFTMAX_SAMPLES
    assert samples(new + 1, softmax_samples=9) == 9


@pytest.mark.parametrize("form", ["origin", "origin@70", "{model}", "{model}@70", "{checkpoint}"])
def test_a_checkpoint_is_named_as_for_generation(staged: Service, form: str) -> None:
    model, checkpoint = trained_models.find_checkpoint(staged.database, "origin")
    job = post(staged, from_checkpoint=form.format(model=model.id, checkpoint=checkpoint.id)).json()
    assert job["from_checkpoint"] == f"{model.id}@70"


def test_a_later_checkpoint_or_model_of_the_name_does_not_change_a_queued_job(staged: Service) -> None:
    before = post(staged).json()["from_checkpoint"]
    store_model(staged.database, "origin", tiny_checkpoint(hidden_size=12))
    after = post(staged)
    assert after.json()["model"]["hidden_size"] == 12
    assert [job["from_checkpoint"] for job in staged.http.get("/jobs").json()["data"]] == [
        after.json()["from_checkpoint"],
        before,
    ]


def test_what_agrees_with_the_checkpoint_may_be_said_and_dropout_changed(staged: Service) -> None:
    said = ORIGIN.as_dict() | {"dropout": 0.5}
    assert post(staged, model=said, preset="auto").json()["model"] == said
    assert post(staged, model={"dropout": 0}).json()["model"] == ORIGIN.as_dict() | {"dropout": 0}


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        ({"model": {"cell": "lstm"}}, "model.cell", "'gru', not 'lstm'"),
        ({"model": {"hidden_size": 256}}, "model.hidden_size", "8, not 256"),
        ({"model": {"num_layers": 2}}, "model.num_layers", "1, not 2"),
        ({"model": {"embedding_size": 64}}, "model.embedding_size", "4, not 64"),
        ({"model": {"normalization": "letters"}}, "model.normalization", "'none', not 'letters'"),
        ({"model": {"dropout": 2}}, "model.dropout", "to 0.95"),
        ({"model": {"hidden_size": 10**4000}}, "model.hidden_size", "1 to 16384"),
        ({"preset": "large"}, "preset", "'large'"),
        ({"training": {"steps": 0}}, "training.steps", "must be"),
        ({"training": {"sequence_length": 4096}}, "corpus", "needs at least"),
        ({"name": "a b"}, "name", "a name is"),
    ],
)
def test_what_contradicts_the_checkpoint_is_refused_saying_what_it_has(
    staged: Service, request_: dict[str, Any], field: str, says: str
) -> None:
    assert says in assert_problem(post(staged, **request_), 422, field)["detail"]
    assert staged.http.get("/jobs").json()["data"] == []


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("nobody", "model_not_found"),
        (f"model_{'a' * 26}", "model_not_found"),
        ("a\0b", "model_not_found"),
        ("origin@71", "checkpoint_not_found"),
        ("origin@x", "checkpoint_not_found"),
        (f"checkpoint_{'a' * 26}", "checkpoint_not_found"),
    ],
)
def test_a_checkpoint_that_is_not_there_answers_404(staged: Service, reference: str, code: str) -> None:
    assert assert_problem(post(staged, from_checkpoint=reference), 404)["code"] == code
    assert assert_problem(post(staged, corpus="nobody"), 404)["code"] == "corpus_not_found"
    assert staged.http.get("/jobs").json()["data"] == []


def test_a_damaged_checkpoint_is_told_queues_nothing_and_is_not_used_again(staged: Service) -> None:
    model, checkpoint = trained_models.find_checkpoint(staged.database, "origin")
    damaged = bytearray(tiny_checkpoint())
    damaged[-1] ^= 1
    damage(staged.database, checkpoint.blob_id, bytes(damaged))
    problem = assert_problem(post(staged), 500)
    assert problem["code"] == "corrupted"
    assert f"{model.id}@70 was found damaged" in problem["detail"]
    assert staged.http.get("/jobs").json()["data"] == []
    assert assert_problem(post(staged, from_checkpoint="origin@70"), 500)["code"] == "corrupted"
    assert assert_problem(post(staged), 404)["code"] == "checkpoint_not_found"


@pytest.mark.parametrize("data", [b"no checkpoint at all", b"x", tiny_checkpoint()[:-4]])
def test_a_stored_file_that_is_no_checkpoint_is_refused(staged: Service, data: bytes) -> None:
    store_model(staged.database, "strange", data)
    problem = assert_problem(post(staged, from_checkpoint="strange"), 422, "from_checkpoint")
    assert problem["code"] == "invalid_checkpoint"


def test_a_model_is_not_deleted_while_a_job_waits_to_start_from_it(staged: Service) -> None:
    job = post(staged).json()
    assert job["id"] in assert_problem(staged.http.delete("/models/origin"), 409)["detail"]
    claim = staged.claim()
    assert_problem(staged.http.delete("/models/origin"), 409)
    claims.finish(staged.database, claim, JobStatus.SUCCEEDED)
    assert staged.http.delete("/models/origin").status_code == 204
    assert staged.http.get(f"/jobs/{job['id']}").json()["from_checkpoint"] == job["from_checkpoint"]


@pytest.mark.parametrize(
    ("normalization", "known", "text", "new"),
    [
        ("letters", "abc ", "ÀÉ, bé C. \n" * 30, {"e"}),
        ("nfc", "aé ", "e\u0301 a\u0300 é\n" * 30, {"à", "\n"}),
        ("nfc", "aé ", "é \u212b\n" * 30, {"Å", "\n"}),
        ("none", "aé ", "e\u0301 é\n" * 40, {"e", "\u0301", "\n"}),
    ],
)
def test_new_characters_are_those_that_are_new_after_the_checkpoints_normalization(
    staged: Service, normalization: Any, known: str, text: str, new: set[str]
) -> None:
    staged.upload(text.encode(), name="text")
    store_model(staged.database, "normal", tiny_checkpoint(characters=known, normalization=normalization))
    job = post(staged, corpus="text", from_checkpoint="normal").json()
    assert job["model"]["normalization"] == normalization
    assert job["new_characters"] == len(new)


def test_the_corpus_is_not_read_for_the_answer(staged: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabularies, "read_corpus", None)
    assert post(staged).json()["new_characters"] == len(NEW)


def test_the_estimate_of_memory_counts_the_characters_of_both(staged: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def estimate(
        model: ModelConfig, training: TrainingConfig, vocabulary_size: int, characters: int, *, device: str
    ) -> int:
        seen.append(vocabulary_size)
        return 2**70

    monkeypatch.setattr("app.feasibility.memory_bytes", estimate)
    assert assert_problem(post(staged), 422, "model")["code"] == "too_much_memory"
    assert seen == [len(ALPHABET) + len(NEW)]


def test_an_idempotency_key_is_honoured_whatever_became_of_the_checkpoint(staged: Service) -> None:
    def ask(**request: Any) -> httpx.Response:
        body = {"corpus": "hamlet", "from_checkpoint": "origin", **request}
        return staged.http.post("/jobs", json=body, headers={"Idempotency-Key": "key"})

    first = ask()
    assert_problem(ask(from_checkpoint="origin@70"), 409)
    staged.http.post(f"/jobs/{first.json()['id']}/cancel")
    assert staged.http.delete("/models/origin").status_code == 204
    again = ask()
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")


def test_a_full_queue_takes_no_such_job_either(staged: Service) -> None:
    for _ in range(staged.settings.max_queued_jobs):
        assert post(staged).status_code == 202
    assert_problem(post(staged), 429)


def test_a_checkpoint_that_goes_in_the_last_moment_answers_404(
    staged: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = job_queue.enqueue_planned

    def late(*arguments: Any, **how: Any) -> Any:
        trained_models.delete_model(staged.database, "origin")
        return queue(*arguments, **how)

    monkeypatch.setattr(job_queue, "enqueue_planned", late)
    assert assert_problem(post(staged), 404)["code"] == "checkpoint_not_found"
    assert staged.http.get("/jobs").json()["data"] == []


def test_a_running_job_tells_how_many_characters_its_network_knows(staged: Service) -> None:
    post(staged)
    claims.record_started(staged.database, staged.claim(), {"step": 0, "vocabulary_size": 33})
    assert staged.http.get("/jobs/hamlet").json()["vocabulary_size"] == 33


def test_the_large_file_of_a_checkpoint_is_read_in_pieces(staged: Service) -> None:
    store_model(staged.database, "wide", tiny_checkpoint(hidden_size=400))
    checkpoint = trained_models.find_checkpoint(staged.database, "wide")[1]
    assert checkpoint.bytes > 2**20, "more than a chunk"
    assert post(staged, from_checkpoint="wide").json()["model"]["hidden_size"] == 400
