"""The image and `docker compose`, on a real engine: `make test-compose`. Steps are told with their times.

Where there is no engine, `CHARSMITH_TEST_ENGINE` may name a script that starts one (`up`); without both it fails.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.engine import STREAMS, Composed, run, running, step
from tests.docs.blocks import blocks_of
from tests.system.harness import wait_for

pytestmark = pytest.mark.compose

PROJECT = "charsmith-test"
IMAGE_BYTES = 1_500_000_000
STEPS = 2_000
STOP_SECONDS = 30
BACKUP = "docker compose exec api charsmith backup"
"""How the page's commands for a backup out of the containers, and back into them, begin."""


@pytest.fixture(scope="module")
def stack(image: str) -> Iterator[Composed]:
    with running(Composed(PROJECT, "docker-compose.yml")) as composed:
        yield composed


def test_the_image_is_small_and_runs_as_nobody(image: str) -> None:
    built = json.loads(run("docker", "image", "inspect", image))[0]
    print(f"           image: {built['Size'] / 1e6:,.0f} MB")
    assert built["Size"] < IMAGE_BYTES
    assert built["Config"]["User"] == "charsmith"
    assert built["Config"]["Healthcheck"]["Test"][:2] == ["CMD", "python"]


@pytest.mark.parametrize("service", ["api", "worker"])
def test_a_container_can_write_to_its_volume_alone_and_gain_nothing(stack: Composed, service: str) -> None:
    container = stack.inspect(service)
    assert container["State"]["Health"]["Status"] == "healthy"
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["Init"]
    assert container["Config"]["StopTimeout"] == STOP_SECONDS
    check = "import pathlib; pathlib.Path('/opt/x').write_text('x')"
    tried = subprocess.run(
        ["docker", "exec", f"{PROJECT}-{service}-1", "python", "-c", check], capture_output=True, text=True, check=False
    )
    assert "Read-only file system" in tried.stderr


@pytest.mark.parametrize("service", ["api", "worker"])
def test_settings_reach_the_containers(stack: Composed, service: str) -> None:
    assert f"CHARSMITH_MAX_STREAMS={STREAMS}" in stack.inspect(service)["Config"]["Env"]


def test_the_service_is_published_on_loopback_alone(stack: Composed) -> None:
    bindings = stack.inspect("api")["HostConfig"]["PortBindings"]
    assert [b["HostIp"] for b in bindings["8000/tcp"]] == ["127.0.0.1"]
    assert not stack.inspect("worker")["HostConfig"]["PortBindings"]


def test_the_main_job_runs_through_the_published_port_and_survives_its_worker(stack: Composed) -> None:
    with step("a worker is seen"):
        stack.wait_until_ready()
    stack.upload()
    with step("a small job trained"):
        job = stack.submit(steps=60)
        stack.wait_for_status(job["id"], "succeeded", seconds=120)
    with step("500 characters written"):
        text = stack.http.post("/generate", json={"model": job["name"], "max_characters": 500}).text
    assert len(text) == 500
    with step(f"a job of {STEPS} steps, its worker killed in between"):
        job = stack.submit(steps=STEPS)
        stack.wait_for_step(job["id"], 40)
        before = stack.inspect("worker")["State"]["Pid"]
        os.kill(before, 9)
        with step("  the worker is back"):
            wait_for("the worker's restart", lambda: stack.inspect("worker")["State"]["Pid"] not in (0, before))
        done = stack.wait_for_status(job["id"], "succeeded", seconds=180)
    assert done["attempt"] == 2
    steps = [row[0] for row in stack.losses(job["id"])]
    assert steps == sorted(set(steps))


def test_a_backup_goes_out_of_the_containers_and_back_by_the_commands_of_the_page(
    stack: Composed, tmp_path: Path
) -> None:
    (commands,) = [block.text for block in blocks_of("docs/containers.md", "sh") if block.text.startswith(BACKUP)]
    stack.upload(text="Kept by the backup.\n" * 9, name="kept")
    backup, stop, restore, up = commands.splitlines()
    with step("backup out of the running containers"):
        stack.as_documented(backup, tmp_path)
    assert (tmp_path / "backup.db").stat().st_size > 0
    gone = stack.upload(text="Written after the backup.\n" * 9, name="later")
    with step("stop"):
        stack.as_documented(stop, tmp_path)
    for service in ("api", "worker"):
        assert stack.inspect(service)["State"]["ExitCode"] == 0
    with step("restore"):
        stack.as_documented(restore, tmp_path)
    with step("up"):
        stack.as_documented(up, tmp_path)
    assert stack.http.get("/corpora/kept").status_code == 200
    assert stack.http.get(f"/corpora/{gone['id']}").status_code == 404
