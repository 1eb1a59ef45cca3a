"""Jobs on a real Ray cluster of two nodes on this machine: spread, ended, moved when a node dies; nothing is lost."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.driven import LATER, DrivenCluster
from tests.system.harness import Installation, command_of, free_port, serving, wait_for

pytest.importorskip("ray", reason="Ray is an extra: pip install 'charsmith[ray]'")
pytestmark = pytest.mark.system

LONG, STEPS, SHORT = 100_000, 3_000, 40
EVALUATE_EVERY = 100
REACH_SECONDS, STOP_SECONDS = 5.0, 8.0
"""Within which a cancel or a pause is to reach a node, and a dispatcher to end that is asked to."""
BUSY = 5
"""So many times as long may all take where other tests have the cores."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenCluster]:
    made = DrivenCluster(tmp_path_factory.mktemp("nodes"), nodes=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def dispatched(nodes: DrivenCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service, and a dispatcher in place of a worker."""
    made = Installation(tmp_path_factory.mktemp("dispatched"))
    made.start_api()
    made.environment |= nodes.environment | {"CHARSMITH_EXECUTOR": "ray", "RAY_ADDRESS": nodes.address}
    made.upload()
    made.start("worker")
    made.wait_until_ready()
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], bytes]]:
    """The weights that a job of so many steps comes to with an ordinary worker, in peace."""
    with serving(tmp_path_factory.mktemp("undisturbed")) as made:
        made.upload()

        @functools.cache
        def weights(steps: int) -> bytes:
            job = submit(made, steps)
            return made.weights(made.wait_for_status(job["id"], "succeeded", seconds=LATER), steps)

        yield weights


def submit(at: Installation, steps: int) -> dict[str, Any]:
    return at.submit(steps=steps, evaluate_every=EVALUATE_EVERY)


def told_of_ray(at: Installation) -> str:
    """What Ray had to say to the dispatcher, whose log is records alone."""
    lines = [line for file in at.folder.glob("worker-*.log") for line in file.read_text().splitlines()]
    records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return "\n".join(record["message"] for record in records if record["logger"] == "worker.ray")


def submit_two(nodes: DrivenCluster, at: Installation, steps: int) -> list[dict[str, Any]]:
    """Two jobs that train at the same time. One place may be ready long before the other, which has PyTorch to load:
    whoever begins first stands still until the other one has begun."""
    wait_for("nobody at work", lambda: not nodes.trainings() or None, LATER)
    jobs = [submit(at, steps), submit(at, steps)]
    first, *others = wait_for("a training", lambda: nodes.trainings() or None, LATER)
    if not others:
        os.kill(first, signal.SIGSTOP)
        try:
            wait_for("the other one", lambda: len(nodes.trainings()) == 2 or None, LATER)
        finally:
            os.kill(first, signal.SIGCONT)
    for job in jobs:
        at.wait_for_step(job["id"], EVALUATE_EVERY, seconds=LATER)
    return jobs


def running_everywhere(nodes: DrivenCluster) -> bool | None:
    return nodes.at_work() == nodes.living or None


def test_jobs_run_on_both_nodes_at_once_and_come_to_what_they_come_to_in_a_process(
    nodes: DrivenCluster, dispatched: Installation, undisturbed: Callable[[int], bytes]
) -> None:
    jobs = [submit(dispatched, LONG), submit(dispatched, LONG), submit(dispatched, SHORT)]
    wait_for("a training on each node", lambda: running_everywhere(nodes), LATER)
    assert dispatched.job(jobs[2]["id"])["status"] == "queued", "there are two places"
    for job in jobs[:2]:
        dispatched.http.post(f"/jobs/{job['id']}/cancel")
        dispatched.wait_for_status(job["id"], "cancelled")
    done = dispatched.wait_for_status(jobs[2]["id"], "succeeded", seconds=LATER)
    assert len(done["progress"]["machines"]) == 1
    assert dispatched.weights(done, SHORT) == undisturbed(SHORT)
    # Of the two that were cancelled it has swept one; on a node that is slow to clear up its own may still be there.
    wait_for("no more than the other one's folder", lambda: len(nodes.folders()) <= 1 or None)


@pytest.mark.parametrize(("verb", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_cancel_and_a_pause_reach_the_node_soon(
    nodes: DrivenCluster, dispatched: Installation, undisturbed: Callable[[int], bytes], verb: str, status: str
) -> None:
    job = submit(dispatched, STEPS)
    dispatched.wait_for_step(job["id"], 100, seconds=LATER)
    trained = nodes.trainers()
    asked_at = time.monotonic()
    assert dispatched.http.post(f"/jobs/{job['id']}/{verb}").is_success
    dispatched.wait_for_status(job["id"], status)
    assert time.monotonic() - asked_at < BUSY * REACH_SECONDS
    wait_for("nothing at work any more", lambda: not nodes.at_work() or None, LATER)
    if verb == "cancel":
        wait_for("its processes to be gone", lambda: not any(map(command_of, trained)) or None)
    if verb == "pause":
        assert 0 < dispatched.job(job["id"])["progress"]["step"] < STEPS
        dispatched.http.post(f"/jobs/{job['id']}/resume")
        dispatched.wait_for_status(job["id"], "succeeded", seconds=LATER)
        assert dispatched.weights(dispatched.job(job["id"]), STEPS) == undisturbed(STEPS)


def test_what_cannot_be_trained_fails_with_its_reason(dispatched: Installation) -> None:
    """Long enough, until nothing but letters is left of it."""
    dispatched.upload("1234567890 \n" * 200, "numbers")
    job = dispatched.http.post(
        "/jobs", json={"corpus": "numbers", "model": {"normalization": "letters"}, "training": {"steps": 5}}
    )
    assert job.is_success, job.text
    done = dispatched.wait_for_status(job.json()["id"], "failed", seconds=LATER)
    assert (done["error"]["code"], done["attempt"]) == ("corpus_too_short", 1)


def test_a_job_whose_node_dies_goes_on_elsewhere_to_the_same_weights(
    nodes: DrivenCluster, dispatched: Installation, undisturbed: Callable[[int], bytes]
) -> None:
    jobs = submit_two(nodes, dispatched, 2 * STEPS)
    nodes.order(f"kill {nodes.living[0]}")
    try:
        done = [dispatched.wait_for_status(job["id"], "succeeded", seconds=LATER) for job in jobs]
        assert sorted(each["attempt"] for each in done) == [1, 2]
        expected = undisturbed(2 * STEPS)
        assert [dispatched.weights(each, 2 * STEPS) == expected for each in done] == [True, True]
        words = ("has been marked dead", "Raylet is terminated")
        wait_for("a word of Ray's", lambda: any(each in told_of_ray(dispatched) for each in words) or None)
    finally:
        nodes.order("add")
    spread = [submit(dispatched, LONG), submit(dispatched, LONG)]
    wait_for("a training on the new node too", lambda: running_everywhere(nodes), LATER)
    for job in spread:
        dispatched.http.post(f"/jobs/{job['id']}/cancel")
        dispatched.wait_for_status(job["id"], "cancelled")


def test_a_training_that_is_killed_goes_on_from_its_resume_point(
    nodes: DrivenCluster, dispatched: Installation, undisturbed: Callable[[int], bytes]
) -> None:
    job = submit(dispatched, STEPS)
    dispatched.wait_for_step(job["id"], 100, seconds=LATER)
    before = set(nodes.actors())
    assert before
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    done = dispatched.wait_for_status(job["id"], "succeeded", seconds=LATER)
    assert done["attempt"] == 2
    assert dispatched.weights(done, STEPS) == undisturbed(STEPS)


def test_a_killed_dispatcher_takes_its_trainings_along_and_the_next_one_goes_on(
    nodes: DrivenCluster, dispatched: Installation, undisturbed: Callable[[int], bytes]
) -> None:
    jobs = submit_two(nodes, dispatched, 2 * STEPS)
    trained = nodes.trainers()
    assert len(trained) >= 6, "each actor has a process that forks, and one that trains"
    dispatched.programs[-1].kill()
    dispatched.programs[-1].wait()
    wait_for("their processes to be gone", lambda: not any(map(command_of, trained)) or None)
    dispatched.start("worker")
    done = [dispatched.wait_for_status(job["id"], "succeeded", seconds=LATER) for job in jobs]
    assert [each["attempt"] for each in done] == [2, 2]
    expected = undisturbed(2 * STEPS)
    assert [dispatched.weights(each, 2 * STEPS) == expected for each in done] == [True, True]


def test_a_dispatcher_that_is_asked_to_stop_stores_resume_points_and_spends_no_attempt(
    nodes: DrivenCluster, dispatched: Installation, undisturbed: Callable[[int], bytes]
) -> None:
    job = submit(dispatched, STEPS)
    dispatched.wait_for_step(job["id"], 100, seconds=LATER)
    asked_at = time.monotonic()
    dispatched.programs[-1].terminate()
    assert dispatched.programs[-1].wait(BUSY * STOP_SECONDS) == 0
    assert time.monotonic() - asked_at < BUSY * STOP_SECONDS
    assert dispatched.job(job["id"])["status"] == "queued"
    assert 0 < dispatched.job(job["id"])["progress"]["step"] < STEPS
    dispatched.start("worker")
    done = dispatched.wait_for_status(job["id"], "succeeded", seconds=LATER)
    assert dispatched.weights(done, STEPS) == undisturbed(STEPS)


def test_a_dispatcher_that_finds_no_node_lets_jobs_wait_for_one(nodes: DrivenCluster, dispatched: Installation) -> None:
    dispatched.programs[-1].terminate()
    assert dispatched.programs[-1].wait(BUSY * STOP_SECONDS) == 0
    for number in nodes.living:
        nodes.order(f"kill {number}")
    nodes.order("settle")
    try:
        dispatched.start("worker")
        dispatched.wait_until_ready()
        (worker,) = dispatched.http.get("/readyz").json()["workers"]
        assert worker["memory_bytes"] is None
        job = submit(dispatched, SHORT)
        assert dispatched.job(job["id"])["status"] == "queued"
    finally:
        nodes.order("add")
        nodes.order("add")
    done = dispatched.wait_for_status(job["id"], "succeeded", seconds=LATER)
    assert done["attempt"] == 1


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"RAY_ADDRESS": ""}, "RAY_ADDRESS=HOST:PORT"),
        ({"RAY_ADDRESS": "ray://127.0.0.1:10001"}, "it is 'ray://127.0.0.1:10001'"),
        ({"RAY_ADDRESS": f"127.0.0.1:{free_port()}"}, "no head of a Ray cluster answers there"),
        ({"RAY_ADDRESS": "127.0.0.1"}, "it is HOST:PORT"),
        ({"RAY_AUTH_MODE": "disabled"}, "token authentication alone"),
        ({"RAY_AUTH_MODE": "Disabled"}, "token authentication alone"),
        ({"RAY_AUTH_MODE": "k8s"}, "token authentication alone"),
        ({"RAY_AUTH_TOKEN": "of somebody else"}, "InvalidAuthToken"),
    ],
    ids=[
        "no address",
        "a client's address",
        "nobody there",
        "no port",
        "no authentication",
        "spelt otherwise",
        "of another kind",
        "another token",
    ],
)
def test_a_dispatcher_without_a_cluster_that_it_may_use_says_what_it_wants(
    nodes: DrivenCluster, tmp_path: Path, told: dict[str, str], words: str
) -> None:
    environment = nodes.environment | {"CHARSMITH_EXECUTOR": "ray", "CHARSMITH_DATA_DIR": str(tmp_path)}
    environment |= {"RAY_ADDRESS": nodes.address} | told
    answer = subprocess.run(
        [sys.executable, "-m", "app.cli", "worker"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 1
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_node_on_which_no_training_can_begin_is_left_alone_and_named(
    nodes: DrivenCluster, dispatched: Installation, undisturbed: Callable[[int], bytes]
) -> None:
    busy = [submit(dispatched, LONG), submit(dispatched, LONG)]
    wait_for("a training on each node", lambda: running_everywhere(nodes), LATER)
    nodes.order("add /proc/nowhere")
    of_no_use = nodes.living[-1]
    try:
        job = submit(dispatched, SHORT)
        wait_for("a word of it", lambda: "/proc/nowhere" in dispatched.logs() or None, LATER)
        for each in busy:
            dispatched.http.post(f"/jobs/{each['id']}/cancel")
        done = dispatched.wait_for_status(job["id"], "succeeded", seconds=LATER)
        assert dispatched.weights(done, SHORT) == undisturbed(SHORT)
    finally:
        nodes.order(f"kill {of_no_use}")


def test_a_dispatcher_whose_head_is_away_ends_jobs_and_itself_when_told(
    nodes: DrivenCluster, dispatched: Installation
) -> None:
    """The last test of this cluster."""
    job = submit(dispatched, LONG)
    dispatched.wait_for_step(job["id"], EVALUATE_EVERY, seconds=LATER)
    late = submit(dispatched, LONG)  # it has a place, and perhaps no process there
    dispatched.wait_for_status(late["id"], "running")
    nodes.order("behead")
    asked_at = time.monotonic()
    dispatched.http.post(f"/jobs/{late['id']}/cancel")
    dispatched.wait_for_status(late["id"], "cancelled")
    cancelled_at = time.monotonic()
    dispatched.programs[-1].terminate()
    assert dispatched.programs[-1].wait(BUSY * STOP_SECONDS) == 0
    ended_at = time.monotonic()
    assert cancelled_at - asked_at < BUSY * REACH_SECONDS
    assert ended_at - cancelled_at < BUSY * STOP_SECONDS
    told = dispatched.job(job["id"])
    assert told["status"] == "queued"
    assert dispatched.latest_step(told) >= EVALUATE_EVERY, "what it had stored stays its own"
