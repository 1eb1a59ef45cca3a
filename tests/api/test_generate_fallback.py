"""Checkpoints that cannot be read: passed over for the next best one, or told as what they are."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.generation.stream import GenerationRefused, Stream
from app.store import claims, corpora, jobs
from app.store.blobs import read_blob
from app.store.errors import DiskFull
from app.store.trained_models import Checkpoint, find_checkpoint, list_checkpoints
from tests.api.generating import GeneratingService, generating_service, tiny_checkpoint
from tests.api.service import assert_problem
from tests.databases import damage


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data"), max_streams=4) as made:
        yield made


def train(service: GeneratingService, name: str, *losses: float) -> None:
    """A model with a checkpoint of each validation loss, at steps 1, 2, ..., each another network."""
    corpus = corpora.add_corpus(service.database, [b"to be, or not to be"], "hamlet").corpus
    jobs.enqueue(service.database, name=name, corpus_id=corpus.id, model={"cell": "gru"}, training={"steps": 9})
    claim = claims.claim_next(service.database, "worker-1")
    assert claim is not None
    for step, loss in enumerate(losses, 1):
        claims.record_saved(
            service.database,
            claim,
            step=step,
            train_loss=None,
            val_loss=loss,
            checkpoint=tiny_checkpoint(hidden_size=4 + step),
            info={"vocabulary_size": 1, "parameters": 1},
            resume_point=b"resume",
        )


def flip(service: GeneratingService, checkpoint: Checkpoint) -> None:
    """Change one byte of the stored file."""
    data = bytearray(b"".join(read_blob(service.database, checkpoint.blob_id)))
    data[-1] ^= 1
    damage(service.database, checkpoint.blob_id, bytes(data))


def test_a_damaged_checkpoint_is_passed_over_for_the_next_best_and_for_good(service: GeneratingService) -> None:
    train(service, "poet", 1.5, 1.1, 1.3)
    _, best = find_checkpoint(service.database, "poet")
    assert best.step == 2
    flip(service, best)
    for _ in range(2):  # found damaged, then known to be
        answer = service.generate(model="poet", max_characters=5)
        assert (answer.status_code, len(answer.text)) == (200, 5)
        assert answer.headers["x-checkpoint-step"] == "3"
    assert [each.step for each in list_checkpoints(service.database, "poet") if each.corrupted] == [2]
    assert assert_problem(service.generate(model="poet@2"), 500)["code"] == "corrupted"


def test_when_all_are_damaged_there_is_none_left(service: GeneratingService) -> None:
    train(service, "lost", 1.5, 1.1)
    for checkpoint in list_checkpoints(service.database, "lost"):
        flip(service, checkpoint)
    for _ in range(2):
        assert assert_problem(service.generate(model="lost"), 404)["code"] == "checkpoint_not_found"


@pytest.mark.parametrize(
    ("refused", "status", "code"),
    [("checkpoint_gone", 503, "checkpoint_gone"), ("checkpoint_corrupted", 500, "corrupted")],
)
def test_giving_up_tells_what_was_found_at_last(
    service: GeneratingService, monkeypatch: pytest.MonkeyPatch, refused: str, status: int, code: str
) -> None:
    async def refuse(stream: Stream, *_: Any) -> None:
        stream.evict()
        tries.append(stream)
        raise GenerationRefused(refused, "it is not to be had")

    tries: list[Stream] = []
    monkeypatch.setattr(service.generation, "admit", refuse)
    monkeypatch.setattr("app.routes.admission.quarantine", lambda *_: True)
    answer = service.generate()
    assert assert_problem(answer, status)["code"] == code
    assert ("retry-after" in answer.headers) == (status == 503)
    assert len(tries) == 5
    assert service.generation.open_streams == 0


def test_what_cannot_be_written_down_is_told_all_the_same(
    service: GeneratingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no reason to answer a reader that the disk is full."""

    def fail(*_: object) -> None:
        raise DiskFull

    train(service, "noted", 1.5, 1.1)
    for checkpoint in list_checkpoints(service.database, "noted"):
        flip(service, checkpoint)
    with monkeypatch.context() as full:
        full.setattr("app.store.trained_models.mark_corrupted", fail)
        for answer in (service.generate(model="noted"), service.http.get("/models/noted/download")):
            assert assert_problem(answer, 500)["code"] == "corrupted"
    assert service.generation.open_streams == 0
    assert_problem(service.generate(model="noted"), 404)


@pytest.mark.parametrize("code", ["load_failed", "model_too_large"])
def test_a_matter_of_the_moment_answers_503_and_when_to_come_back(
    service: GeneratingService, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    async def refuse(stream: Stream, *_: Any) -> None:
        stream.evict()
        raise GenerationRefused(code, "not now")

    monkeypatch.setattr(service.generation, "admit", refuse)
    answer = service.generate()
    assert assert_problem(answer, 503)["code"] == code
    assert int(answer.headers["retry-after"]) > 0
