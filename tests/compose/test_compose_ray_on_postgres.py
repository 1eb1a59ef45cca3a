"""The three files together on a real engine: a Ray cluster whose dispatcher keeps everything in PostgreSQL.

`make test-compose`. The tests are one story, in their order.
"""

from collections.abc import Iterator

import pytest

from tests.compose.engine import run, running, step
from tests.compose.ray_stack import RayStack
from tests.system.harness import wait_for

pytestmark = pytest.mark.compose

FILES = ("docker-compose.yml", "docker-compose.postgres.yml", "docker-compose.ray.yml")
LONG, SHORT = 6_000, 400
"""Steps: enough for what happens to a job meanwhile."""
COMPILED_SECONDS = 180.0
"""On a new volume nodes first compile what they train with."""


@pytest.fixture(scope="module")
def stack(ray_image: str, postgres: str) -> Iterator[RayStack]:
    secrets = {"POSTGRES_PASSWORD": "p@ss w/ord", "RAY_AUTH_TOKEN": "t0ken"}
    sizes = {"NODE_MEMORY": "4g", "STORE_MEMORY": "256m"}
    composed = RayStack("charsmith-both-test", *FILES, POSTGRES_IMAGE=postgres, **secrets, **sizes)
    with running(composed):
        yield composed


def test_the_database_is_out_of_the_reach_of_nodes(stack: RayStack) -> None:
    """The dispatcher alone is in both networks, and nodes reach it by the one that they are in."""
    inside, cluster = f"{stack.project}_inside", f"{stack.project}_cluster"
    networks = {
        name: set(stack.inspect(name)["NetworkSettings"]["Networks"]) for name in ("db", "worker", "node", "head")
    }
    assert networks == {"db": {inside}, "worker": {inside, cluster}, "node": {cluster}, "head": {cluster}}
    for name in ("node-1", "node-2", "head-1"):
        assert not any(told.startswith(("PG", "CHARSMITH_DATABASE")) for told in stack.container(name)["Config"]["Env"])


def test_jobs_train_on_both_nodes_and_go_on_when_a_node_and_then_the_database_are_killed(stack: RayStack) -> None:
    stack.wait_until_ready()
    stack.upload()
    jobs = [stack.submit(steps=LONG, evaluate_every=100, seed=7) for _ in range(2)]
    with step("both nodes train"):
        wait_for("both nodes at work", lambda: stack.at_work() == ["node-1", "node-2"] or None, COMPILED_SECONDS)
        for job in jobs:
            stack.wait_for_step(job["id"], 100, COMPILED_SECONDS)
    run("docker", "kill", f"{stack.project}-node-1")
    with step("the database is killed while the other node trains, and is back"), stack.started_again("db-1"):
        stack.kill_from_outside("db-1")
    with step("both have ended"):
        done = [stack.wait_for_status(job["id"], "succeeded", seconds=300) for job in jobs]
    losses = [stack.losses(job["id"]) for job in done]
    assert losses[0] == losses[1], "neither has lost or gained anything"
    steps = [row[0] for row in losses[0]]
    assert steps == sorted(set(steps))
    request = {"model": jobs[0]["name"], "max_characters": 200}
    assert len(stack.http.post("/generate", json=request, timeout=COMPILED_SECONDS).text) == 200


def test_all_is_there_after_down_and_up(stack: RayStack) -> None:
    before = stack.http.get("/jobs?limit=100").json()["data"]
    with step("down, and up"):
        stack.compose("down")
        stack.up()
    assert stack.http.get("/jobs?limit=100").json()["data"] == before
    stack.wait_until_ready()
    stack.wait_for_status(stack.submit(steps=SHORT)["id"], "succeeded", seconds=COMPILED_SECONDS)
