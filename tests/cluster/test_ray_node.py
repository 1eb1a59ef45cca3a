"""`python -m worker.ray_node`, the program of a container that is a node, on a real head: joined, stopped, bereft."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.driven import LATER, DrivenCluster
from tests.system.harness import command_of, wait_for

pytest.importorskip("ray", reason="Ray is an extra: pip install 'charsmith[ray]'")
pytestmark = pytest.mark.system

COMMAND = """
import pathlib, signal, sys, time
import ray

def asked(*_):
    pathlib.Path("asked").touch()
    sys.exit(7)

ray.init(log_to_driver=False)
signal.signal(signal.SIGTERM, asked)
own = ray.get_runtime_context().get_node_id()
cores = next(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == own)
pathlib.Path("new").write_text(str(cores))
pathlib.Path("new").rename("joined")
while True:
    time.sleep(0.1)
"""
"""What runs beside the node: it tells how many cores the node has that it runs on, and when it is asked to end."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrivenCluster]:
    made = DrivenCluster(tmp_path_factory.mktemp("nodes"), nodes=2)
    yield made
    made.close()


@contextmanager
def node(nodes: DrivenCluster, folder: Path, *command: str, **told: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program, its output in a file of the folder, in which the command runs too."""
    environment = nodes.environment | {"RAY_ADDRESS": nodes.address, "CHARSMITH_DATA_DIR": str(folder)} | told
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    with (folder / "output").open("wb") as output:
        program = subprocess.Popen(
            [sys.executable, "-m", "worker.ray_node", *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.wait(60)
        finally:
            program.kill()


def of_ray(folder: Path) -> list[int]:
    """Ray's processes whose files lie there."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if str(folder).encode() in command_of(pid)]


def raylet(folder: Path) -> int:
    (pid,) = [pid for pid in of_ray(folder) if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"]
    return pid


def said(folder: Path) -> str:
    return (folder / "output").read_text()


def joined(program: subprocess.Popen[bytes], folder: Path) -> None:
    def probe() -> bool | None:
        assert program.poll() is None, said(folder)
        return (folder / "joined").exists() or None

    wait_for("the command to have joined", probe, LATER)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder. The path of a socket has 107 bytes at most, of which pytest's folders would take too many."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_a_command_runs_on_a_node_without_cores_and_is_the_one_that_is_asked_to_end(
    nodes: DrivenCluster, short: Path
) -> None:
    with node(nodes, short, sys.executable, "-c", COMMAND) as program:
        joined(program, short)
        assert (short / "joined").read_text() == "0"
        assert of_ray(short)
        assert len(list((short / "tmp" / "ray").glob("attempt-*"))) == 1
        program.terminate()
        assert program.wait(60) == 7, said(short)
    assert (short / "asked").exists()
    wait_for("Ray's processes to be gone", lambda: not of_ray(short) or None)
    assert not list((short / "tmp" / "ray").iterdir())


def test_when_its_node_dies_the_command_is_ended_and_the_program_fails(nodes: DrivenCluster, short: Path) -> None:
    with node(nodes, short, sys.executable, "-c", COMMAND) as program:
        joined(program, short)
        os.kill(raylet(short), signal.SIGKILL)
        assert program.wait(60) == 1, said(short)
    wait_for("Ray's processes to be gone", lambda: not of_ray(short) or None)


def test_when_the_command_ends_so_does_the_node(nodes: DrivenCluster, short: Path) -> None:
    with node(nodes, short, sys.executable, "-c", "raise SystemExit(3)") as program:
        assert program.wait(LATER) == 3, said(short)
    wait_for("Ray's processes to be gone", lambda: not of_ray(short) or None)


def test_a_node_with_another_token_does_not_join_and_begins_nothing(nodes: DrivenCluster, short: Path) -> None:
    with node(nodes, short, sys.executable, "-c", COMMAND, RAY_AUTH_TOKEN="of somebody else") as program:
        assert program.wait(LATER) == 1
    assert "token" in said(short).lower()
    assert not (short / "joined").exists()


def test_a_node_that_trains_tells_its_health_and_ends_when_asked(nodes: DrivenCluster, short: Path) -> None:
    check = [sys.executable, "-m", "worker.ray_node", "--check"]
    environment = nodes.environment | {"RAY_ADDRESS": nodes.address, "CHARSMITH_DATA_DIR": str(short)}

    def healthy() -> bool:
        return subprocess.run(check, env=environment, capture_output=True).returncode == 0

    assert not healthy()
    with node(nodes, short) as program:
        wait_for("the node to be healthy", lambda: healthy() or None, LATER)
        program.terminate()
        assert program.wait(60) == 0, said(short)
    assert not healthy()


def test_without_an_address_it_says_what_it_wants(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "worker.ray_node"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "RAY_ADDRESS=HOST:PORT" in answer.stderr


def test_a_dispatcher_that_nobody_watches_ends_when_its_node_dies(nodes: DrivenCluster, short: Path) -> None:
    """The last of this file: which of the nodes of this machine it has joined by is Ray's choice, so all die."""
    told = {"RAY_ADDRESS": nodes.address, "CHARSMITH_EXECUTOR": "ray", "CHARSMITH_DATA_DIR": str(short)}
    with (short / "output").open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "worker"], env=nodes.environment | told, stdout=output, stderr=output
        )
    try:
        wait_for("the dispatcher to be ready", lambda: "ready: trains" in said(short) or None, LATER)
        for pid in nodes.raylets():
            os.kill(pid, signal.SIGKILL)
        assert worker.wait(LATER) == 1, said(short)
        assert "does not work any more" in said(short)
    finally:
        worker.kill()
        worker.wait()
