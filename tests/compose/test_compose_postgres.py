"""The service on PostgreSQL with two workers, by docker-compose.postgres.yml on a real engine: `make test-compose`.

The tests are one story, in their order. Where the official image cannot be pulled, Debian's packages stand in for it.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.engine import ROOT, Composed, assert_keeps_a_secret, run, running, step
from tests.docs.blocks import blocks_of
from tests.system.harness import wait_for

pytestmark = pytest.mark.compose

PROJECT = "charsmith-postgres-test"
FILES = ("docker-compose.yml", "docker-compose.postgres.yml")
PASSWORD = "p@ss:w/ord %41 'and' \"$HOME\""
"""With all that an address, a shell or compose might take for something else."""
LONG, SHORT = 4_000, 400
"""Steps: enough for what happens to a job meanwhile."""
COMPILED_SECONDS = 180.0
"""On a new volume workers first compile what they train with, and the service what it writes with."""
TAKEN_OVER_SECONDS = 45.0
"""A lease (13 s), and what a busy machine may add."""
START = "(umask 077 && printf 'COMPOSE_FILE=docker-compose.yml:docker-compose.postgres.yml"
BACKUP = "(umask 077 && docker compose exec -T db pg_dump"
"""How the page's commands begin: to start, and for a backup."""


@pytest.fixture(scope="module")
def stack(image: str, postgres: str) -> Iterator[Composed]:
    settings = {"POSTGRES_PASSWORD": PASSWORD, "POSTGRES_IMAGE": postgres, "CHARSMITH_TORCH_THREADS": "1"}
    with running(Composed(PROJECT, *FILES, **settings)) as composed:
        yield composed


def workers_of(stack: Composed) -> list[dict[str, Any]]:
    """As the service sees them."""
    answer = stack.http.get("/readyz")
    return answer.json()["workers"] if answer.is_success else []


def worker_at(stack: Composed, job_id: str) -> str:
    """The container whose worker trains the job; a worker's name begins with its machine's."""

    def probe() -> str | None:
        return next((w["id"].partition("-")[0] for w in workers_of(stack) if w["job_id"] == job_id), None)

    return wait_for(f"a worker at {job_id}", probe, TAKEN_OVER_SECONDS)


def said(stack: Composed, model: str) -> str:
    """What the model writes, the same each time."""
    request = {"model": model, "max_characters": 200, "temperature": 0.7, "seed": 7}
    answer = stack.http.post("/generate", json=request)
    assert answer.is_success, answer.text
    return answer.text


def everything(stack: Composed) -> dict[str, Any]:
    """All that the service has, as it lists it."""
    return {what: stack.http.get(f"/{what}?limit=100").json()["data"] for what in ("corpora", "jobs", "models")}


def test_without_a_password_nothing_starts(engine: None) -> None:
    settings = {"COMPOSE_FILE": os.pathsep.join(FILES), "POSTGRES_PASSWORD": ""}
    done = subprocess.run(
        ["docker", "compose", "config"],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "openssl rand" in done.stderr


def test_the_database_is_reached_from_within_alone_and_can_gain_nothing(stack: Composed) -> None:
    container = stack.inspect("db")
    host = container["HostConfig"]
    assert container["State"]["Health"]["Status"] == "healthy"
    assert container["Config"]["User"] == "postgres"
    assert container["Config"]["StopSignal"] == "SIGINT"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert not host["PortBindings"]
    assert [mount["Type"] for mount in container["Mounts"]] == ["volume"]
    for service in ("db", "worker"):
        (network,) = stack.inspect(service)["NetworkSettings"]["Networks"]
        assert json.loads(run("docker", "network", "inspect", network))[0]["Internal"]


@pytest.mark.parametrize("host", ["--host=127.0.0.1", "--host=/var/run/postgresql"])
def test_nobody_enters_with_another_password(stack: Composed, host: str) -> None:
    enter = ["docker", "exec", "--env", "PGPASSWORD=another", f"{PROJECT}-db-1", "psql", host, "--command=SELECT 1"]
    tried = subprocess.run(enter, capture_output=True, text=True, check=False)
    assert "password authentication failed" in tried.stderr
    stored = stack.compose(
        "exec", "-T", "db", "psql", "-At", "--command=SELECT rolpassword FROM pg_authid WHERE rolcanlogin"
    )
    assert stored.startswith("SCRAM-SHA-256$")


def test_two_workers_train_at_once_and_one_takes_over_from_the_other_when_it_is_killed(stack: Composed) -> None:
    with step("two workers are seen"):
        stack.wait_until_ready(workers=2)
    stack.upload()
    long, short = stack.submit(steps=LONG, seed=7), stack.submit(steps=SHORT)
    with step("both jobs run, each at a worker of its own"):
        containers = worker_at(stack, long["id"]), worker_at(stack, short["id"])
    assert containers[0] != containers[1]
    with step("a text was written by the first checkpoint, while both train"):
        stack.wait_for_step(long["id"], 40, COMPILED_SECONDS)
        request = {"model": long["name"], "max_characters": 500}
        assert len(stack.http.post("/generate", json=request, timeout=COMPILED_SECONDS).text) == 500
    with step("the short job has ended"):
        stack.wait_for_status(short["id"], "succeeded", seconds=120)
    killed = stack.job(long["id"])
    assert killed["status"] == "running"
    run("docker", "kill", containers[0])
    with step("the other worker has the job of the killed one"):
        wait_for("the other worker", lambda: worker_at(stack, long["id"]) == containers[1], TAKEN_OVER_SECONDS)
    with step("it has ended there"):
        done = stack.wait_for_status(long["id"], "succeeded", seconds=180)
    assert done["attempt"] == 2
    steps = [row[0] for row in stack.losses(long["id"])]
    assert steps == sorted(set(steps))
    with step("the killed one is back"):
        stack.up()
        stack.wait_until_ready(workers=2)


def test_a_job_goes_on_when_the_database_is_started_anew(stack: Composed) -> None:
    (same,) = [job for job in everything(stack)["jobs"] if job["training"]["steps"] == LONG]
    job = stack.submit(steps=LONG, seed=7)
    stack.wait_for_step(job["id"], 40)
    with step("the database is started anew"):
        stack.compose("restart", "db")
    with step("the service is ready again"):
        stack.wait_until_ready(workers=2)
    assert stack.job(job["id"])["status"] == "running"
    with step("the job has ended"):
        done = stack.wait_for_status(job["id"], "succeeded", seconds=180)
    assert done["attempt"] == 1
    assert stack.losses(job["id"]) == stack.losses(same["id"]), "neither of both has lost or gained anything"


def test_a_backup_goes_out_of_the_database_and_back_by_the_commands_of_the_page(
    stack: Composed, tmp_path: Path
) -> None:
    (commands,) = [block.text for block in blocks_of("docs/containers.md", "sh") if block.text.startswith(BACKUP)]
    backup, *restore = commands.splitlines()
    before = everything(stack)
    with step("backup out of the running database"):
        stack.as_documented(backup, tmp_path)
    assert (tmp_path / "charsmith.dump").stat().st_mode & 0o077 == 0
    stack.upload(text="Written after the backup.\n" * 9, name="later")
    with step("restored, up again"):
        for command in restore:
            stack.as_documented(command, tmp_path)
    assert everything(stack) == before
    databases = stack.compose("exec", "-T", "db", "psql", "-At", "--command=SELECT datname FROM pg_database")
    assert set(databases.split()) == {"charsmith", "postgres", "template0", "template1"}


def test_the_commands_of_the_page_start_more_workers_and_make_a_key(stack: Composed, tmp_path: Path) -> None:
    (commands,) = [block.text for block in blocks_of("docs/containers.md", "sh") if block.text.startswith(START)]
    settings, *others = commands.splitlines()
    assert_keeps_a_secret(stack, settings, tmp_path, FILES, "POSTGRES_PASSWORD")
    with step("the others"):
        told = "".join(stack.as_documented(command, tmp_path) for command in others)
    stack.http.headers["Authorization"] = f"Bearer {told.split()[-1]}"
    stack.wait_until_ready(workers=4)


def test_all_is_there_after_down_and_up(stack: Composed) -> None:
    before = everything(stack)
    model = before["models"][0]["name"]
    text = said(stack, model)
    with step("down, and up"):
        stack.compose("down")
        stack.up()
    stack.wait_until_ready(workers=2)
    assert everything(stack) == before
    assert said(stack, model) == text
