"""Models and checkpoints: how a reference is understood, and what damage does."""

from typing import Any

import pytest
from sqlalchemy import update

from app.store import claims
from app.store.blobs import write_blob
from app.store.errors import Conflict, Corrupted, InvalidCursor, NotFound, StoreError
from app.store.job_state import JobStatus
from app.store.names import InvalidName
from app.store.schema import blob_chunks
from app.store.trained_models import (
    add_model,
    delete_model,
    find_checkpoint,
    get_model,
    list_checkpoints,
    list_models,
    quarantine,
    read_checkpoint,
)

INFO = {"config": {"cell": "gru"}, "vocabulary_size": 65, "parameters": 5000, "step": 700, "val_loss": 1.5}


def trained(scene: Any, name: str = "poet", steps: tuple[int, ...] = (10, 20, 30), best: int = 20) -> claims.Claim:
    claim = scene.running(name=name)
    for step in steps:
        scene.save(claim, step, val_loss=abs(step - best) / 10 + 1.0)
    claims.finish(scene.database, claim, JobStatus.SUCCEEDED)
    return claim


def test_a_reference_is_a_model_or_a_model_at_a_step_or_a_checkpoint(scene: Any) -> None:
    trained(scene)
    model = get_model(scene.database, "poet")
    found = {
        reference: find_checkpoint(scene.database, reference)[1].step
        for reference in ("poet", model.id, "poet@10", f"{model.id}@30", "poet@0030", "poet@latest")
    }
    assert list(found.values()) == [20, 20, 10, 30, 30, 30]
    newest = list_checkpoints(scene.database, model.id)[0]
    assert find_checkpoint(scene.database, newest.id) == (model, newest)


def test_a_name_means_the_newest_model_that_has_it(scene: Any) -> None:
    trained(scene)
    older = get_model(scene.database, "poet")
    trained(scene, steps=(5,), best=5)
    assert get_model(scene.database, "poet").id != older.id
    assert find_checkpoint(scene.database, "poet")[1].step == 5
    with pytest.raises(NotFound):
        find_checkpoint(scene.database, "poet@20")
    assert find_checkpoint(scene.database, f"{older.id}@20")[0] == older


@pytest.mark.parametrize(
    "reference",
    [
        *("nobody", "poet@11", "poet@-1", "poet@1e1", "poet@٣", "poet@", "poet@10@10", "poet@" + "9" * 30, "@10"),
        *("", "model_" + "a" * 26, "checkpoint_" + "a" * 26, "\ud800", "po\x00et"),
    ],
)
def test_a_reference_to_nothing_is_not_found(scene: Any, reference: str) -> None:
    trained(scene)
    with pytest.raises(NotFound):
        find_checkpoint(scene.database, reference)


def test_a_damaged_checkpoint_is_noticed_and_replaced_by_the_next_best_when_told(scene: Any) -> None:
    trained(scene)
    with scene.database.write() as connection:
        connection.execute(update(blob_chunks).where(blob_chunks.c.data == b"weights 20").values(data=b"0"))
    _, best = find_checkpoint(scene.database, "poet")
    with pytest.raises(Corrupted, match=best.blob_id):
        b"".join(read_checkpoint(scene.database, best))
    assert find_checkpoint(scene.database, "poet")[1] == best, "nothing falls back by itself"
    quarantine(scene.database, best)
    model, next_best = find_checkpoint(scene.database, "poet")
    assert (next_best.step, model.best_step) == (30, 30)
    assert b"".join(read_checkpoint(scene.database, next_best)) == b"weights 30"
    with pytest.raises(Corrupted):
        find_checkpoint(scene.database, "poet@20")
    assert [checkpoint.corrupted for checkpoint in list_checkpoints(scene.database, "poet")] == [False, True, False]


def test_a_model_with_nothing_sound_left_has_no_checkpoint_to_find(scene: Any) -> None:
    trained(scene, steps=(1,), best=1)
    quarantine(scene.database, find_checkpoint(scene.database, "poet")[1])
    with pytest.raises(NotFound):
        find_checkpoint(scene.database, "poet")
    assert get_model(scene.database, "poet").best_step is None


def test_an_uploaded_file_becomes_a_model(scene: Any) -> None:
    model = add_model(scene.database, write_blob(scene.database, [b"weights"]), "gift", INFO)
    assert (model.name, model.job_id, model.corpus_id, model.config) == ("gift", None, None, {"cell": "gru"})
    assert (model.best_step, model.best_val_loss, model.parameters) == (700, 1.5, 5000)
    _, checkpoint = find_checkpoint(scene.database, "gift@700")
    assert b"".join(read_checkpoint(scene.database, checkpoint)) == b"weights"


def test_an_upload_that_cannot_be_named_makes_no_model(scene: Any) -> None:
    blob = write_blob(scene.database, [b"weights"])
    before = scene.dump()
    with pytest.raises(InvalidName):
        add_model(scene.database, blob, "no good", INFO)
    assert scene.dump() == before
    add_model(scene.database, blob, "good", INFO)
    with pytest.raises(StoreError):
        add_model(scene.database, blob, "twice", INFO)
    assert [model.name for model in list_models(scene.database, 9).data] == ["good"]


def test_deleting_a_model_takes_its_checkpoints_along_but_not_its_job(scene: Any) -> None:
    claim = trained(scene)
    delete_model(scene.database, "poet")
    assert list_models(scene.database, 9).data == []
    assert scene.status(claim.job) == "succeeded"
    assert len(scene.dump()["blobs"]) == 2, "the corpus and the resume point"
    with pytest.raises(NotFound):
        delete_model(scene.database, "poet")


def test_a_model_in_training_is_not_deleted(scene: Any) -> None:
    claim = scene.running(name="poet")
    scene.save(claim, 1)
    for _ in ("running", "queued"):
        with pytest.raises(Conflict, match="is training it"):
            delete_model(scene.database, "poet")
        if scene.status(claim.job) == "running":
            claims.release(scene.database, claim)


def test_models_are_listed_newest_first_in_pages(scene: Any) -> None:
    for number in range(4):
        add_model(scene.database, write_blob(scene.database, [b"x"]), f"model-{number}", INFO)
    page = list_models(scene.database, 3)
    assert [model.name for model in page.data] == ["model-3", "model-2", "model-1"]
    add_model(scene.database, write_blob(scene.database, [b"x"]), "late", INFO)
    assert [model.name for model in list_models(scene.database, 3, page.next).data] == ["model-0"]
    with pytest.raises(InvalidCursor):
        list_models(scene.database, 3, "nonsense")
