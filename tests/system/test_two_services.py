"""Two services and two workers on one database: whatever is said to the one, the other knows."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.databases import SERVER
from tests.system.harness import Installation, Service, free_port, wait_for

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Service]]:
    """An installation, and a second service on its database; on a server the two have no folder in common."""
    folder = tmp_path_factory.mktemp("pair")
    first = Installation(folder)
    first.start_api()
    first.upload()
    own = first.environment.copy()
    port = free_port()
    first.environment["CHARSMITH_PORT"] = str(port)
    if SERVER:
        first.environment["CHARSMITH_DATA_DIR"] = str(folder / "elsewhere")
    second = Service(f"http://127.0.0.1:{port}")
    first.start("api")
    second.wait_until_ready(workers=0)
    first.start("worker")
    first.environment = own
    first.start("worker")
    first.wait_until_ready(workers=2)
    yield first, second
    second.http.close()
    first.close()


def workers_of(service: Service) -> set[str]:
    return {worker["id"] for worker in service.http.get("/readyz").json()["workers"]}


def test_both_workers_are_seen_by_both_and_take_a_job_each(pair: tuple[Installation, Service]) -> None:
    first, second = pair
    jobs = [service.submit(steps=100_000) for service in pair]
    for service in pair:
        wait_for("two running jobs", lambda s=service: [s.job(job["id"])["status"] for job in jobs] == ["running"] * 2)
    workers = {first.job(job["id"])["worker"] for job in jobs}
    assert len(workers) == 2
    for service in pair:  # each waits to see them move, by its own clock
        wait_for("both workers", lambda s=service: workers_of(s) == workers)
    for job, other in zip(jobs, (second, first), strict=True):
        assert other.http.post(f"/jobs/{job['id']}/cancel").is_success
        pair[0].wait_for_status(job["id"], "cancelled")


def test_a_job_that_is_queued_at_one_is_followed_at_the_other_to_its_end(pair: tuple[Installation, Service]) -> None:
    first, second = pair
    job = first.submit(steps=40)
    told: list[dict[str, Any]] = []
    with second.http.stream("GET", f"/jobs/{job['id']}/events", timeout=60) as answer:
        told += [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert [each["status"] for each in told if "status" in each] == ["queued", "running", "succeeded"]
    assert first.weights(first.job(job["id"]), 40) == second.weights(second.job(job["id"]), 40)


def test_a_text_that_one_began_the_other_goes_on_with(pair: tuple[Installation, Service]) -> None:
    first, second = pair
    first.wait_for_status(first.submit(steps=20)["id"], "succeeded")
    ask = {"model": "bottles", "prompt": "green ", "seed": 3}
    whole = first.http.get("/generate", params=ask | {"max_characters": 80}).text
    begun = first.http.post("/generate", json=ask | {"max_characters": 30}, headers={"Accept": "application/json"})
    rest = second.http.post(
        "/generate", json={"model": "bottles", "continue_from": begun.json()["state"], "max_characters": 50}
    )
    assert begun.json()["text"] + rest.text == whole


def test_a_text_is_one_corpus_wherever_it_is_uploaded_and_deleted(pair: tuple[Installation, Service]) -> None:
    first, second = pair
    made = first.upload("to be, or not to be\n" * 50, "hamlet")
    again = second.http.post("/corpora", files={"file": ("x.txt", b"to be, or not to be\n" * 50)})
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    assert second.http.delete(f"/corpora/{made['id']}").status_code == 204
    assert first.http.get(f"/corpora/{made['id']}").status_code == 404


def test_a_key_that_is_revoked_opens_neither_from_the_next_request_on(
    pair: tuple[Installation, Service], tmp_path: Path
) -> None:
    """The last test of the pair: from the first key on nobody gets in without one."""
    first, second = pair

    def keys(*arguments: str) -> str:
        command = [*first.command, "keys", *arguments]
        return subprocess.run(command, env=first.environment, check=True, capture_output=True, text=True).stdout.strip()

    key = keys("create", "laptop", "--scope", "admin")
    headers = {"Authorization": f"Bearer {key}"}
    for service in pair:
        assert service.http.get("/jobs").status_code == 401
        assert service.http.get("/jobs", headers=headers).is_success
    job = first.http.post("/jobs", json={"corpus": "bottles", "training": {"steps": 100_000}}, headers=headers).json()
    with second.http.stream("GET", f"/jobs/{job['id']}/events", headers=headers, timeout=httpx.Timeout(20)) as follower:
        lines = follower.iter_lines()
        assert "status" in next(lines)
        keys("revoke", "laptop")
        assert [service.http.get("/jobs", headers=headers).status_code for service in pair] == [401, 401]
        for _ in lines:  # it ends, or this fails when nothing comes for 20 s
            pass
