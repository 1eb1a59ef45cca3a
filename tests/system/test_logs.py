"""What all processes log in a whole run: JSON, a line each, nothing hostile in it, and nothing of texts or prompts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bad_inputs.wire import FORM, exchange, form, part, request
from tests.databases import once
from tests.system.harness import Installation, children_of, kill, wait_for

pytestmark = [once, pytest.mark.system]

SECRET = "zyzzyva"
TEXT = "".join(f"{n} {SECRET}s hop on the wall\n" for n in range(800))
HOSTILE = "\r\n{}\x1b[2J\x07forged"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.environment["CHARSMITH_LOG_LEVEL"] = "debug"
    yield made
    made.close()


def use(installation: Installation) -> None:
    """A text, a training, what it writes, and everything that may go wrong on the way."""
    url, http = installation.url, installation.http
    installation.upload(TEXT)
    job = installation.submit(steps=40)
    installation.wait_for_status(job["id"], "succeeded")
    prompt = {"model": "bottles", "prompt": SECRET, "max_characters": 20, "stop": [SECRET], "seed": 1}
    for accept in ("text/plain", "text/event-stream", "application/json"):
        assert http.post("/generate", json=prompt, headers={"Accept": accept}).status_code == 200
    assert http.get("/generate", params=prompt).status_code == 200
    assert http.get("/generate", params=prompt | {"top_k": -1}).status_code == 422
    assert http.post("/generate", json=prompt | {"prompt": SECRET + "€"}).status_code == 422
    assert http.post("/score", json={"model": "bottles", "text": TEXT}).status_code == 200
    assert http.post("/jobs", json={"corpus": "bottles", SECRET: 1}).status_code == 422
    assert http.post("/corpora", files={"file": ("a", TEXT.encode() + b"\xff")}).status_code == 422
    exchange(url, request("GET", f"/nowhere/%0d%0a%1b[2J{SECRET[:3]}?q={SECRET}", headers=[("X", b"\x1b[2J\x07")]))
    exchange(url, [b"GET /\x1b[2J HTTP/1.1\r\n\r\n"])
    exchange(url, request("POST", "/corpora", form(part("file", TEXT.encode() * 2, HOSTILE)), FORM))


def read_and_kill(installation: Installation, generation: int) -> None:
    """A stream that is broken off on purpose."""
    params = {"model": "bottles", "max_characters": 1_000_000}
    with installation.http.stream("GET", "/generate", params=params) as answer:
        for number, _ in enumerate(answer.iter_bytes(100)):
            if number == 0:
                kill(generation)


def lines_of(installation: Installation) -> list[dict[str, Any]]:
    """Of all programs. That it has a FAULT a program says before it logs."""
    said = [line for path in sorted(installation.folder.glob("*.log")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in said if not line.startswith("FAULT=")]


def test_a_whole_run_is_told_in_lines_of_json_that_hold_no_text_no_prompt_and_nothing_hostile(
    installation: Installation,
) -> None:
    service = installation.start_api()
    worker = installation.start("worker")
    use(installation)
    (generation,) = children_of(service.pid)
    with pytest.raises(httpx.RemoteProtocolError):
        read_and_kill(installation, generation)
    wait_for("another generation process", lambda: set(children_of(service.pid)) - {generation} or None)
    for program in (worker, service):
        program.terminate()
        program.wait(30)

    said = [path.read_text() for path in sorted(installation.folder.glob("*.log"))]
    lines = lines_of(installation)
    assert {"service", "worker"} <= {line["process"] for line in lines}
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    for text in said:
        assert SECRET not in text
        assert text.replace("\n", "").isprintable()
    accesses = [line for line in lines if line["logger"] == "uvicorn.access"]
    assert {"GET", "POST"} <= {line["method"] for line in accesses}
    assert {200, 404, 422} <= {line["status"] for line in accesses}
    assert not [line["message"] for line in lines if "without completing" in line["message"]]
    assert [line for line in lines if "a stream broke off" in line["message"]]


def test_every_line_about_a_job_bears_the_id_of_the_request_that_queued_it(installation: Installation) -> None:
    installation.environment["FAULT"] = "training.event:1:raise"
    installation.start_api()
    installation.start("worker")
    installation.upload(TEXT)
    mine = {"X-Request-ID": "mine-1"}
    answer = installation.http.post("/jobs", json={"corpus": "bottles", "training": {"steps": 5}}, headers=mine)
    job_id = answer.json()["id"]
    failed = installation.wait_for_status(job_id, "failed")

    assert failed["request_id"] == "mine-1"
    lines = lines_of(installation)
    about = [line for line in lines if f"job {job_id}" in line["message"]]
    assert {"worker"} == {line["process"] for line in about}
    trained = [line for line in lines if line["process"] == "training"]
    assert [line for line in trained if "exception" in line]
    assert [line for line in [*about, *trained] if line.get("request_id") != "mine-1"] == []
    others = [line for line in lines if line["process"] == "worker" and line not in about]
    assert {line.get("request_id") for line in others} <= {None, "mine-1"}
    assert None in {line.get("request_id") for line in others}
