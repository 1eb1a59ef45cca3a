"""The main job from outside: upload, train in the worker, stream what the network writes."""

import json
from pathlib import Path

import httpx
import pytest
from safetensors import safe_open

from tests.system.harness import TEXT, Installation, wait_for

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def trained(running: Installation) -> dict[str, object]:
    job = running.submit(steps=60)
    return running.wait_for_status(job["id"], "succeeded")


def events(running: Installation, job_id: str, last_id: str = "") -> list[tuple[int, str, dict[str, object]]]:
    """All events of a finished job, read off the wire."""
    body = running.http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": last_id} if last_id else {}).text
    found = []
    for frame in body.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_a_job_trains_and_reports_every_kind_of_event_in_order(running: Installation, trained: dict) -> None:
    found = events(running, trained["id"])
    assert [number for number, *_ in found] == sorted({number for number, *_ in found})
    assert {kind for _, kind, _ in found} == {"status", "progress", "evaluation", "sample", "checkpoint"}
    assert [data["status"] for _, kind, data in found if kind == "status"] == ["queued", "running", "succeeded"]
    assert events(running, trained["id"], str(found[3][0])) == found[4:]


def test_a_finished_job_tells_its_losses_and_its_best_checkpoint(running: Installation, trained: dict) -> None:
    assert trained["progress"]["step"] == trained["progress"]["steps"] == 60
    assert trained["progress"]["fraction"] == 1
    rows = running.losses(trained["id"])
    train = [loss for _, loss, _ in rows if loss is not None]
    assert train[-1] < train[0] - 0.3, "60 steps on bottles teach more than that"
    val = {step: loss for step, _, loss in rows if loss is not None}
    assert trained["best"]["val_loss"] == min(val.values())
    assert val[trained["best"]["step"]] == trained["best"]["val_loss"]


def test_the_same_seed_writes_the_same_text_in_all_three_content_types(running: Installation, trained: dict) -> None:
    request = {"model": "bottles", "prompt": "green ", "max_characters": 80, "seed": 7, "temperature": 0.7}
    plain = running.http.post("/generate", json=request)
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert plain.headers["x-seed"] == "7"
    assert len(plain.text) == 80
    assert set(plain.text) <= set(TEXT)
    whole = running.http.post("/generate", json=request, headers={"Accept": "application/json"}).json()
    assert (whole["text"], whole["finish_reason"], whole["characters"]) == (plain.text, "length", 80)
    with running.http.stream("GET", "/generate", params=request, headers={"Accept": "text/event-stream"}) as response:
        lines = [line for line in response.iter_lines() if line]
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert "".join(piece.get("text", "") for piece in pieces) == plain.text
    assert lines[-2] == "event: done"
    assert pieces[-1]["seed"] == 7


def test_a_downloaded_model_opens_with_safetensors_alone(running: Installation, trained: dict, tmp_path: Path) -> None:
    path = tmp_path / "bottles.safetensors"
    path.write_bytes(running.http.get("/models/bottles/download").content)
    with safe_open(path, framework="numpy") as file:
        assert file.get_tensor("layers.0.weight_hh_l0").shape == (96, 32)


def test_an_uploaded_model_writes_what_the_original_writes(running: Installation, trained: dict) -> None:
    data = running.http.get("/models/bottles/download").content
    answer = running.http.post("/models", files={"file": ("m.safetensors", data)}, data={"name": "copy"})
    assert answer.status_code == 201, answer.text
    texts = [
        running.http.post("/generate", json={"model": name, "seed": 3, "max_characters": 60}).text
        for name in ("bottles", "copy")
    ]
    assert texts[0] == texts[1]


def test_a_model_can_write_while_it_is_still_trained(running: Installation) -> None:
    job = running.submit(steps=100_000)
    job = running.wait_for_step(job["id"], 20)
    assert job["status"] == "running"
    answer = running.http.post("/generate", json={"model": job["model_id"], "max_characters": 30})
    assert len(answer.text) == 30
    assert running.http.post(f"/jobs/{job['id']}/cancel").status_code == 202
    assert running.wait_for_status(job["id"], "cancelled")["best"]["step"] >= 20
    again = running.http.post(f"/jobs/{job['id']}/cancel")
    assert again.status_code == 409
    assert len(running.http.post("/generate", json={"model": job["model_id"], "max_characters": 30}).text) == 30


def test_a_paused_job_stores_where_it_was_and_goes_on_there(running: Installation) -> None:
    job = running.submit(steps=100_000, evaluate_every=50_000)
    wait_for("progress", lambda: running.job(job["id"])["progress"].get("step"))
    assert running.http.post(f"/jobs/{job['id']}/pause").status_code == 202
    paused = running.wait_for_status(job["id"], "paused")
    step = paused["progress"]["step"]
    assert step > 0
    assert running.http.post(f"/jobs/{job['id']}/resume").status_code in (200, 202)
    going = running.wait_for_status(job["id"], "running")
    assert going["attempt"] == paused["attempt"] + 1

    def further() -> bool | None:
        rows = [row for row in running.losses(job["id"]) if row[0] > step]
        return bool(rows) or None

    wait_for("a step after the pause", further)
    first_steps = [row[0] for row in running.losses(job["id"])]
    assert first_steps == sorted(set(first_steps))
    running.http.post(f"/jobs/{job['id']}/cancel")
    running.wait_for_status(job["id"], "cancelled")


def test_the_queue_says_which_place_a_job_has_and_forgets_a_cancelled_one(running: Installation) -> None:
    first = running.submit(steps=100_000)
    running.wait_for_status(first["id"], "running")
    second, third = running.submit(steps=20), running.submit(steps=20)
    assert running.job(second["id"])["place"] == 1
    assert running.job(third["id"])["place"] == 2
    assert running.http.post(f"/jobs/{second['id']}/cancel").json()["status"] == "cancelled"
    assert running.job(third["id"])["place"] == 1
    running.http.post(f"/jobs/{first['id']}/cancel")
    running.wait_for_status(third["id"], "succeeded")


def test_a_corpus_that_is_too_short_for_its_settings_is_refused_before_it_is_queued(running: Installation) -> None:
    short = running.http.post("/corpora", files={"file": ("short.txt", b"abcabc")}).json()
    answer = running.http.post("/jobs", json={"corpus": short["id"]})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_chinese_emoji_and_combining_marks_come_back_code_point_for_code_point(running: Installation) -> None:
    text = "春眠不覺曉,處處聞啼鳥。👩‍👩‍👧 e\u0301 ñ\r\n" * 60
    corpus = running.http.post("/corpora", files={"file": ("poem.txt", text.encode())}).json()
    assert running.http.get(f"/corpora/{corpus['id']}/text").content == text.encode()
    request = {"corpus": corpus["id"], "model": {"hidden_size": 64}, "training": {"steps": 250, "learning_rate": 0.01}}
    request["training"] |= {"batch_size": 4, "sequence_length": 32}
    job = running.http.post("/jobs", json=request).json()
    running.wait_for_status(job["id"], "succeeded")
    greedy = {"model": job["name"], "prompt": "春眠不覺曉,", "max_characters": 20, "temperature": 0}
    assert running.http.post("/generate", json=greedy).text == text[6:26]


def test_one_stream_reaches_its_reader_before_it_ends(running: Installation, trained: dict) -> None:
    request = {"model": "bottles", "max_characters": 100_000}
    with running.http.stream("POST", "/generate", json=request) as response:
        first = next(response.iter_text())
    assert 1 <= len(first) < 100_000
    assert httpx.get(f"{running.url}/healthz", trust_env=False).status_code == 200
