"""A model that goes on learning from another text, from outside: by HTTP, and by the command line."""

from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import STOP_SECONDS, TEXT, Installation

pytestmark = pytest.mark.system

NOTES = "".join(f"{n} ÄPFEL hängen am Baum, und fällt einer ☂ {n}\n" for n in range(200))
NEW = set(NOTES) - set(TEXT)
COURSE = {"steps": 40, "batch_size": 8, "sequence_length": 32, "evaluate_every": 20}


@pytest.fixture(scope="module")
def origin(running: Installation) -> dict[str, Any]:
    job = running.submit(steps=60)
    return running.wait_for_status(job["id"], "succeeded")


def go_on(running: Installation, corpus: str, **request: Any) -> dict[str, Any]:
    """The finished job that went on from `bottles`."""
    said = {"corpus": corpus, "from_checkpoint": "bottles", "training": COURSE, **request}
    answer = running.http.post("/jobs", json=said)
    assert answer.status_code == 202, answer.text
    done = running.wait_for_status(answer.json()["id"], "succeeded")
    assert done["new_characters"] == answer.json()["new_characters"]
    return done


def test_a_model_goes_on_with_new_characters_and_writes_from_a_prompt_of_them(
    running: Installation, origin: dict[str, Any]
) -> None:
    running.upload(NOTES, "notes")
    job = go_on(running, "notes")
    assert (job["new_characters"], job["vocabulary_size"]) == (len(NEW), len(set(TEXT) | set(NOTES)))
    assert job["from_checkpoint"] == f"{origin['model_id']}@{origin['best']['step']}"
    assert running.http.get("/models/notes").json()["vocabulary_size"] == job["vocabulary_size"]
    losses = {step: loss for step, _, loss in running.losses(job["id"]) if loss is not None}
    assert list(losses) == [0, 20, 40]
    assert losses[40] < losses[0] - 1

    request = {"prompt": "".join(sorted(NEW)), "max_characters": 20, "seed": 1}
    written = running.http.post("/generate", json={"model": "notes", **request})
    assert (written.status_code, len(written.text)) == (200, 20)
    refused = running.http.post("/generate", json={"model": "bottles", **request})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_character")


def test_on_its_own_corpus_it_begins_where_the_checkpoint_stood(running: Installation, origin: dict[str, Any]) -> None:
    job = go_on(running, "bottles", name="further", model={"dropout": 0})
    assert job["new_characters"] == 0
    step, _, loss = running.losses(job["id"])[0]
    assert (step, loss) == (0, origin["best"]["val_loss"])
    assert job["best"]["val_loss"] <= loss
    text = {"max_characters": 40, "seed": 3}
    first, again = (running.http.post("/generate", json={"model": m, **text}) for m in ("bottles", "further@0"))
    assert first.text == again.text


def test_the_command_line_goes_on_from_a_model(running: Installation, origin: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "more.txt"
    file.write_text(NOTES * 2)
    flags = ("--name", "more", "--from-checkpoint", "bottles", "--steps", "5")
    program = running.start("train", str(file), *flags)
    assert program.wait(STOP_SECONDS * 2) == 0, running.logs()
    assert f"from {origin['model_id']}@{origin['best']['step']}, {len(NEW)} new characters" in running.logs()
    wrong = running.start("train", str(file), *flags, "--cell", "lstm")
    assert wrong.wait(STOP_SECONDS) == 1
    assert "model.cell: the checkpoint has 'gru', not 'lstm'" in running.logs()
