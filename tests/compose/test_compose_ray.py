"""The service on a Ray cluster, by docker-compose.ray.yml on a real engine: `make test-compose`.

The tests are one story, in their order.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose.engine import ROOT, assert_keeps_a_secret, run, running, step
from tests.compose.ray_stack import RayStack
from tests.docs.blocks import blocks_of
from tests.system.harness import wait_for

pytestmark = pytest.mark.compose

PROJECT = "charsmith-ray-test"
FILES = ("docker-compose.yml", "docker-compose.ray.yml")
DATABASE = "docker-compose.postgres.yml"
TOKEN = "t@ken '41' \"$HOME\" %41"
"""With all that a shell or compose might take for something else."""
LONG, SHORT = 6_000, 400
"""Steps: enough for what happens to a job meanwhile."""
COMPILED_SECONDS = 180.0
"""On a new volume nodes first compile what they train with."""
STOP_SECONDS = 30
"""The grace time."""
OURS = ("head-1", "node-1", "node-2", "worker-1")
"""The containers in which Ray runs."""
START = "(umask 077 && printf 'COMPOSE_FILE=docker-compose.yml:docker-compose.ray.yml"
"""How the page's commands begin."""


@pytest.fixture(scope="module")
def stack(ray_image: str) -> Iterator[RayStack]:
    settings = {"RAY_AUTH_TOKEN": TOKEN, "NODE_MEMORY": "4g", "STORE_MEMORY": "256m"}
    with running(RayStack(PROJECT, *FILES, **settings)) as composed:
        yield composed


def everything(stack: RayStack) -> dict[str, Any]:
    """All that the service has, as it lists it."""
    return {what: stack.http.get(f"/{what}?limit=100").json()["data"] for what in ("corpora", "jobs", "models")}


def config_of(*files: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COMPOSE_FILE": os.pathsep.join(files)} | settings
    command = ["docker", "compose", "config"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_without_a_token_nothing_starts(engine: None) -> None:
    done = config_of(*FILES, RAY_AUTH_TOKEN="")
    assert done.returncode != 0
    assert "openssl rand" in done.stderr


def test_the_files_of_the_database_and_of_the_cluster_go_together(engine: None) -> None:
    told = config_of(FILES[0], DATABASE, FILES[1], RAY_AUTH_TOKEN="a", POSTGRES_PASSWORD="b", WORKERS="4")
    assert told.returncode == 0, told.stderr
    services = yaml.safe_load(told.stdout)["services"]
    worker = services["worker"]
    assert {"PGPASSWORD", "RAY_AUTH_TOKEN", "CHARSMITH_DATABASE_URL"} <= set(worker["environment"])
    assert set(worker["networks"]) == {"inside", "cluster"}
    assert worker["deploy"]["replicas"] == 1, "one dispatcher for all nodes"
    for member in ("head", "node"):
        assert set(services[member]["networks"]) == {"cluster"}
        assert "PGPASSWORD" not in services[member]["environment"]
    for other in ("api", "db"):
        assert "cluster" not in services[other]["networks"]
        assert "RAY_AUTH_TOKEN" not in services[other]["environment"]


def test_the_image_with_ray_is_another_one_and_not_much_larger(ray_image: str, image: str) -> None:
    sizes = [json.loads(run("docker", "image", "inspect", each))[0]["Size"] for each in (image, ray_image)]
    print("           images: {:,.0f} MB, with Ray {:,.0f} MB".format(*(size / 1e6 for size in sizes)))
    assert sizes[0] < sizes[1] < sizes[0] + 500_000_000


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_the_cluster_can_gain_nothing(stack: RayStack, name: str) -> None:
    found = stack.container(name)
    host = found["HostConfig"]
    assert found["State"]["Health"]["Status"] == "healthy"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > host["ShmSize"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["Init"]
    assert found["Config"]["StopTimeout"] == STOP_SECONDS
    assert {user for user, _ in stack.processes(name).values()} == {"10001"}
    check = "import pathlib; pathlib.Path('/opt/x').write_text('x')"
    tried = subprocess.run(
        ["docker", "exec", f"{PROJECT}-{name}", "python", "-c", check], capture_output=True, text=True, check=False
    )
    assert "Read-only file system" in tried.stderr


def test_nothing_but_the_service_is_published_and_the_service_does_not_reach_the_cluster(stack: RayStack) -> None:
    for name in OURS:
        assert not stack.container(name)["HostConfig"]["PortBindings"]
        for network in stack.container(name)["NetworkSettings"]["Networks"]:
            assert json.loads(run("docker", "network", "inspect", network))[0]["Internal"]
    assert list(stack.container("api-1")["HostConfig"]["PortBindings"]) == ["8000/tcp"]
    cluster = f"{PROJECT}_cluster"
    assert cluster not in stack.container("api-1")["NetworkSettings"]["Networks"]
    for name in ("head-1", "node-1", "node-2"):
        assert list(stack.container(name)["NetworkSettings"]["Networks"]) == [cluster]


def test_nodes_have_neither_the_data_nor_a_volume_that_would_be_left_behind(stack: RayStack) -> None:
    volumes = {name: [mount.get("Name") for mount in stack.container(name)["Mounts"]] for name in OURS}
    nodes, data = f"{PROJECT}_nodes", f"{PROJECT}_data"
    assert volumes == {"head-1": [], "node-1": [nodes], "node-2": [nodes], "worker-1": [data]}


def test_the_store_fits_into_the_shared_memory_and_the_memory_is_that_of_the_container(stack: RayStack) -> None:
    (worker,) = stack.http.get("/readyz").json()["workers"]
    node = stack.container("node-1")["HostConfig"]
    assert node["Memory"] / 2 < worker["memory_bytes"] < node["Memory"] - node["ShmSize"] / 2
    (raylet,) = [command for _, command in stack.processes("node-1").values() if "raylet --raylet_socket" in command]
    (store,) = [each for each in raylet.split() if each.startswith("--object_store_memory=")]
    assert node["ShmSize"] / 2 < int(store.partition("=")[2]) < node["ShmSize"]


@pytest.mark.parametrize("told", [("RAY_AUTH_TOKEN=another",), ("RAY_AUTH_MODE=disabled",)], ids=["another", "none"])
def test_nobody_joins_with_another_token_or_without_one(stack: RayStack, told: tuple[str]) -> None:
    command = ["docker", "compose", "run", "--rm", "--no-deps", "-T", "--env", *told, "node"]
    with step("refused"):
        tried = subprocess.run(
            command, cwd=ROOT, env=os.environ | stack.settings, capture_output=True, text=True, timeout=300, check=False
        )
    said = tried.stdout + tried.stderr
    assert tried.returncode != 0, said
    assert "authentica" in said.lower(), said
    assert "Ray runtime started" not in said


def test_jobs_train_on_both_nodes_at_once_and_go_on_when_one_of_them_is_killed(stack: RayStack) -> None:
    stack.wait_until_ready()
    stack.upload()
    jobs = [stack.submit(steps=LONG, evaluate_every=100, seed=7), stack.submit(steps=LONG, evaluate_every=100, seed=7)]
    waits = stack.submit(steps=SHORT)
    with step("both nodes train"):
        wait_for("both nodes at work", lambda: stack.at_work() == ["node-1", "node-2"] or None, COMPILED_SECONDS)
        for job in jobs:
            stack.wait_for_step(job["id"], 100, COMPILED_SECONDS)
    assert stack.job(waits["id"])["status"] == "queued", "there are two places"
    run("docker", "kill", f"{PROJECT}-node-1")
    with step("all three have ended on the other node"):
        done = [stack.wait_for_status(job["id"], "succeeded", seconds=300) for job in (*jobs, waits)]
    # More than two if it was claimed before the head had noticed, and found no place within a minute.
    undisturbed, moved = sorted(job["attempt"] for job in done[:2])
    assert undisturbed == 1 < moved
    losses = [stack.losses(job["id"]) for job in jobs]
    assert losses[0] == losses[1], "neither of both has lost or gained anything"
    with step("the killed one is back"):
        stack.up()


def test_a_killed_dispatcher_and_one_whose_node_dies_are_started_again_and_lose_nothing(stack: RayStack) -> None:
    (same, *_) = [job for job in everything(stack)["jobs"] if job["training"]["steps"] == LONG]
    job = stack.submit(steps=LONG, evaluate_every=100, seed=7)
    stack.wait_for_step(job["id"], 100, COMPILED_SECONDS)
    with stack.started_again("worker-1"):
        stack.kill_from_outside("worker-1")
    stack.wait_for_step(job["id"], stack.latest_step(stack.job(job["id"])) + 1, COMPILED_SECONDS)
    with stack.started_again("worker-1"):
        (raylet,) = [
            pid for pid, (_, command) in stack.processes("worker-1").items() if "raylet --raylet_sock" in command
        ]
        os.kill(raylet, signal.SIGKILL)
    with step("the job has ended"):
        done = stack.wait_for_status(job["id"], "succeeded", seconds=300)
    assert done["attempt"] == 3
    assert stack.losses(job["id"]) == stack.losses(same["id"])


def test_a_dispatcher_that_is_stopped_stores_a_resume_point_and_spends_no_attempt(stack: RayStack) -> None:
    job = stack.submit(steps=LONG, evaluate_every=100)
    stack.wait_for_step(job["id"], 100, COMPILED_SECONDS)
    with step("stopped"):
        stack.compose("stop", "worker")
    state = stack.container("worker-1")["State"]
    assert state["ExitCode"] == 0, run("docker", "logs", "--tail", "20", f"{PROJECT}-worker-1")
    left = stack.job(job["id"])
    assert left["status"] == "queued"
    assert 0 < left["progress"]["step"] < LONG
    with step("up, and the job has ended"):
        stack.up()
        done = stack.wait_for_status(job["id"], "succeeded", seconds=300)
    assert done["attempt"] == 2


def test_all_come_back_when_the_head_is_killed(stack: RayStack) -> None:
    job = stack.submit(steps=LONG, evaluate_every=100)
    stack.wait_for_step(job["id"], 100, COMPILED_SECONDS)
    with stack.started_again(*OURS):
        stack.kill_from_outside("head-1")
    with step("the job has ended"):
        stack.wait_for_status(job["id"], "succeeded", seconds=300)


def test_all_is_there_after_down_and_up(stack: RayStack) -> None:
    before = everything(stack)
    with step("down, and up"):
        stack.compose("down")
        stack.up()
    assert everything(stack) == before
    stack.wait_until_ready()
    stack.wait_for_status(stack.submit(steps=SHORT)["id"], "succeeded", seconds=COMPILED_SECONDS)


def test_the_commands_of_the_page_make_a_token_and_start_it(stack: RayStack, tmp_path: Path) -> None:
    (commands,) = [block.text for block in blocks_of("docs/containers.md", "sh") if block.text.startswith(START)]
    settings, *others = commands.splitlines()
    assert_keeps_a_secret(stack, settings, tmp_path, FILES, "RAY_AUTH_TOKEN")
    with step("the others"):
        for command in others:
            stack.as_documented(command, tmp_path)
