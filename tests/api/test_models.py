"""Looking at, downloading, uploading and deleting models over HTTP."""

import contextlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.generation.streams import GenerationRefused
from app.routes import models
from app.settings import Settings
from app.store import claims, recording, trained_models
from app.store.claims import Claim
from app.store.job_state import JobStatus
from models.checkpoint import encode_checkpoint
from models.checkpoint_header import CheckpointInfo, read_info
from models.config import ModelConfig
from models.onnx_file import checkpoint_of_onnx
from models.rnn import CharRNN
from models.vocabulary import Vocabulary
from tests.api.service import Service, assert_problem, running, walk
from tests.databases import damage

CONFIG = ModelConfig(hidden_size=4, embedding_size=2)


def checkpoint_file(step: int = 5, val_loss: float | None = 1.5) -> bytes:
    vocabulary = Vocabulary(" abc")
    return encode_checkpoint(CharRNN(CONFIG, 4), CheckpointInfo(CONFIG, vocabulary, step, 1.7, val_loss))


def save(service: Service, claim: Claim, step: int, val_loss: float) -> bytes:
    """A checkpoint of the claimed job, stored as a worker does; its file."""
    file = checkpoint_file(step, val_loss)
    info = {"vocabulary_size": 4, "parameters": CONFIG.parameter_count(4)}
    recording.record_saved(
        service.database,
        claim,
        step=step,
        train_loss=1.7,
        val_loss=val_loss,
        checkpoint=file,
        info=info,
        resume_point=b"resume",
    )
    return file


@pytest.fixture
def trained(service: Service) -> dict[int, bytes]:
    """The files by step of a finished job named hamlet; step 10 is the best."""
    service.enqueue("hamlet")
    claim = service.claim()
    files = {
        10: save(service, claim, 10, 1.5),
        20: save(service, claim, 20, 1.6),
    }
    claims.finish(service.database, claim, JobStatus.SUCCEEDED)
    return files


def upload(service: Service, file: bytes, **data: str) -> httpx.Response:
    return service.http.post("/models", files={"file": ("copy.safetensors", file)}, data=data)


def test_a_model_tells_its_network_and_its_best_checkpoint(service: Service, trained: dict[int, bytes]) -> None:
    model = service.http.get("/models/hamlet").json()

    assert model["id"].startswith("model_")
    assert model["config"] == CONFIG.as_dict()
    assert model["parameters"] == CONFIG.parameter_count(4)
    assert model["best"] == {"step": 10, "val_loss": 1.5}
    assert model["latest_step"] == 20
    assert service.http.get(f"/models/{model['id']}").json() == model
    assert service.http.get("/models/hamlet@20").json() == model
    job = service.http.get(f"/jobs/{model['job_id']}").json()
    assert (job["model_id"], job["model_name"]) == (model["id"], "hamlet")


def test_the_checkpoints_of_a_model_are_listed_newest_first(service: Service, trained: dict[int, bytes]) -> None:
    listed = service.http.get("/models/hamlet/checkpoints").json()["data"]

    assert [(item["step"], item["best"], item["bytes"]) for item in listed] == [
        (20, False, len(trained[20])),
        (10, True, len(trained[10])),
    ]


@pytest.mark.parametrize(("key", "step"), [("hamlet", 10), ("hamlet@20", 20), ("hamlet@10", 10)])
def test_a_download_is_the_best_checkpoint_or_the_one_asked_for(
    service: Service, trained: dict[int, bytes], key: str, step: int
) -> None:
    answer = service.http.get(f"/models/{key}/download")

    assert answer.content == trained[step]
    assert answer.headers["content-length"] == str(len(trained[step]))
    assert answer.headers["content-disposition"] == f'attachment; filename="hamlet-{step}.safetensors"'


@pytest.mark.parametrize(("key", "step"), [("hamlet", 10), ("hamlet@20", 20)])
def test_a_download_may_be_an_onnx_file_which_can_be_uploaded(
    service: Service, trained: dict[int, bytes], key: str, step: int
) -> None:
    answer = service.http.get(f"/models/{key}/download?format=onnx")

    assert checkpoint_of_onnx(io.BytesIO(answer.content))[0] == read_info(trained[step])
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-disposition"] == f'attachment; filename="hamlet-{step}.onnx"'

    model = upload(service, answer.content).json()
    assert (model["config"], model["best"]["step"]) == (CONFIG.as_dict(), step)
    assert service.http.get("/models/copy/download").content == trained[step]


@pytest.mark.parametrize("place", [0, 5, 12, -1])
@pytest.mark.parametrize("file_format", ["safetensors", "onnx"])
def test_a_damaged_checkpoint_is_told_in_every_format_and_not_given_out_again(
    service: Service, trained: dict[int, bytes], file_format: str, place: int
) -> None:
    _, checkpoint = trained_models.find_checkpoint(service.database, "hamlet")
    damaged = bytearray(trained[10])
    damaged[place] ^= 1
    damage(service.database, checkpoint.blob_id, bytes(damaged))
    call = f"/models/hamlet/download?format={file_format}"

    assert assert_problem(service.http.get(call), 500)["code"] == "corrupted"
    assert f"hamlet-20.{file_format}" in service.http.get(call).headers["content-disposition"]


def test_another_format_is_refused_with_what_there_is(service: Service, trained: dict[int, bytes]) -> None:
    problem = assert_problem(service.http.get("/models/hamlet/download?format=gguf"), 422, "format")
    assert "'safetensors' or 'onnx'" in problem["detail"]


def test_an_onnx_file_with_another_graph_is_refused_and_nothing_is_kept(
    service: Service, trained: dict[int, bytes]
) -> None:
    file = service.http.get("/models/hamlet/download?format=onnx").content

    problem = assert_problem(upload(service, file.replace(b"Tanh", b"Relu")), 422, "file")

    assert (problem["code"], "the graph is not" in problem["detail"]) == ("invalid_model_file", True)
    assert service.generation.inspected == []


@pytest.mark.parametrize("key", ["macbeth", "hamlet@11", "hamlet@x", "hamlet@", "@", "hamlet@" + "9" * 5000, "%00"])
@pytest.mark.parametrize("call", ["", "/download"])
def test_an_unknown_model_or_step_answers_404(service: Service, trained: dict[int, bytes], key: str, call: str) -> None:
    assert_problem(service.http.get(f"/models/{key}{call}"), 404)


def test_a_model_can_be_deleted_when_its_job_is_finished(service: Service) -> None:
    service.enqueue("hamlet")
    claim = service.claim()
    save(service, claim, 1, 2.0)

    assert_problem(service.http.delete("/models/hamlet"), 409)
    claims.finish(service.database, claim, JobStatus.SUCCEEDED)
    assert service.http.delete("/models/hamlet").status_code == 204
    assert_problem(service.http.get("/models/hamlet"), 404)
    assert_problem(service.http.delete("/models/hamlet"), 404)


def test_a_model_outlives_its_job(service: Service, trained: dict[int, bytes]) -> None:
    model = service.http.get("/models/hamlet").json()
    assert service.http.delete(f"/jobs/{model['job_id']}").status_code == 204

    assert service.http.get("/models/hamlet").json() == model | {"job_id": None}
    assert service.http.get("/models/hamlet/download").content == trained[10]


def test_a_walk_through_the_pages_sees_each_model_once_newest_first(service: Service) -> None:
    made = [upload(service, checkpoint_file(), name=f"n{n}").json()["id"] for n in range(5)]

    assert [model["id"] for model in walk(service.http, "/models", 2)] == made[::-1]
    assert_problem(service.http.get("/models?after=model_unknown"), 422, "after")


def test_what_is_downloaded_can_be_uploaded(service: Service) -> None:
    file = checkpoint_file(step=7)

    answer = upload(service, file)

    assert answer.status_code == 201
    model = answer.json()
    assert answer.headers["location"] == f"/models/{model['id']}"
    assert (model["name"], model["job_id"], model["config"]) == ("copy", None, CONFIG.as_dict())
    assert model["best"] == {"step": 7, "val_loss": 1.5}
    assert len(service.generation.inspected) == 1
    assert service.http.get("/models/copy@7/download").content == file


def spoil_length(file: bytes) -> bytes:
    return b"\xff" * 8 + file[8:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: b"",
        lambda file: b"\x80\x04pickle of the old kind",
        lambda file: file[:-1],
        lambda file: file[:20],
        lambda file: file + b"x",
        lambda file: file.replace(b"F32", b"F16"),
        lambda file: file.replace(b"charsmith", b"something"),
        spoil_length,
    ],
)
def test_a_file_that_is_no_model_is_refused_and_nothing_is_kept(
    service: Service, spoil: Callable[[bytes], bytes]
) -> None:
    problem = assert_problem(upload(service, spoil(checkpoint_file())), 422, "file")

    assert problem["code"] == "invalid_model_file"
    assert service.http.get("/models").json()["data"] == []
    assert service.generation.inspected == []


def test_of_many_uploads_at_once_one_header_is_read_at_a_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header may take a hundred megabytes while it is read."""
    together, meeting = [], threading.Barrier(2)

    def read(*arguments: Any, **options: Any) -> CheckpointInfo:
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.5)
            together.append(True)
        return read_info(*arguments, **options)

    monkeypatch.setattr(models, "read_info", read)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: upload(service, checkpoint_file()), range(4)))

    assert [answer.status_code for answer in answers] == [201] * 4
    assert not together


def test_a_file_that_the_generation_process_refuses_is_not_kept(service: Service) -> None:
    service.generation.refusal = GenerationRefused("invalid_model_file", "a weight is not finite")

    assert_problem(upload(service, checkpoint_file()), 422, "file")
    assert service.http.get("/models").json()["data"] == []


def test_a_checkpoint_that_is_not_there_is_told_how_it_would_be_named(service: Service, trained: object) -> None:
    for reference in ("hamlet@best", "hamlet@LATEST", "hamlet@11"):
        detail = assert_problem(service.http.get(f"/models/{reference}"), 404)["detail"]
        assert "the step of a stored checkpoint, or 'latest'" in detail
    assert "@" not in assert_problem(service.http.get("/models/macbeth"), 404)["detail"]


@pytest.mark.parametrize("code", ["load_failed", "model_too_large", "checkpoint_gone"])
def test_what_only_the_moment_is_to_blame_for_is_not_blamed_on_the_file(service: Service, code: str) -> None:
    service.generation.refusal = GenerationRefused(code, "not now")

    answer = upload(service, checkpoint_file())

    problem = assert_problem(answer, 503)
    assert (problem["code"], "errors" in problem) == (code, False)
    assert int(answer.headers["retry-after"]) > 0
    assert service.http.get("/models").json()["data"] == []


def test_a_model_file_over_the_limit_answers_413(data_dir: Path) -> None:
    with running(Settings(data_dir=data_dir, max_model_bytes=100)) as service:
        assert_problem(upload(service, checkpoint_file()), 413)


@pytest.mark.parametrize("name", ["a b", "model_" + "a" * 26])
def test_a_name_that_may_not_be_given_is_refused_before_anything_is_stored(service: Service, name: str) -> None:
    assert_problem(upload(service, checkpoint_file(), name=name), 422, "name")
    assert service.generation.inspected == []
