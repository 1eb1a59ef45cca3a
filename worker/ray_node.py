"""`python -m worker.ray_node [COMMAND...]`: a container is a node of a Ray cluster as long as this program runs.

Without a command it is a node that trains. With one, a dispatcher, it has no cores and the command runs beside it, from
when the node has joined; what ends first ends the other: without its node a dispatcher can do nothing. Imports no Ray,
`ray start` does the work. Invariant: what Ray writes (sockets, logs, objects that its store has no room for) lies in a
locked folder in the data folder, which goes with the program, or is swept by the next start of one.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from app.processes import StopRequest
from app.settings import PREFIX, SettingsError, load_settings
from worker.ray_driver import ClusterError, require_token
from worker.workspace import attempt_folder, sweep

LOOK_SECONDS = 0.2
OF_DATABASE = (f"{PREFIX}DATABASE_URL", "PG")
"""How settings begin that tell where the database is and how to get in."""
SHARED_SHARE, MACHINE_SHARE = 0.9, 0.2
"""What Ray's object store may take of /dev/shm, which is what limits a container's, and of the machine's memory. Ray
itself would ask for three tenths of the memory, and put on the disk what is more than /dev/shm has."""
COMMAND_SECONDS = 25.0
"""Which the command has to end in order; in a container all must be over within its grace time."""
NODE_SECONDS = 3.0
"""Which Ray has to end in order, when nobody needs it any more."""


def run(address: str, command: Sequence[str], folder: Path, stop: StopRequest) -> int:
    """The exit status: 0 when asked to stop, or the command's. 1 when the node ended of itself."""
    environment = {
        **os.environ,
        # Ray would wait for trainings to end, which take hours; they go on elsewhere.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    starting = _node_command(address, folder, has_cores=not command)
    # What runs on the node needs no database, and has no business with the dispatcher's.
    of_node = {name: value for name, value in environment.items() if not name.startswith(OF_DATABASE)}
    node = subprocess.Popen(starting, env=of_node, start_new_session=True)  # noqa: S603
    beside: subprocess.Popen[bytes] | None = None
    try:
        while node.poll() is None and not stop.wait(LOOK_SECONDS):
            if command and beside is None and node_answers(folder):
                beside = subprocess.Popen(command, env=environment)  # noqa: S603
            if beside is not None and beside.poll() is not None:
                break
        if beside is not None:
            status = _end(beside, COMMAND_SECONDS)
            return status if node.poll() is None else 1
        return 0 if stop.is_set() else 1
    finally:
        _end(node, NODE_SECONDS)
        with suppress(ProcessLookupError):  # what it started, in its session
            os.killpg(node.pid, signal.SIGKILL)


def node_answers(folder: Path) -> bool:
    """Whether the node that has its files there takes connections."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(folder / "session_latest" / "sockets" / "raylet"))
        except OSError:
            return False
    return True


def _node_command(address: str, folder: Path, *, has_cores: bool) -> list[str]:
    # The folder is told, else it is the head's, whose session bears the same name on all nodes.
    told = [f"--address={address}", f"--temp-dir={folder}", "--block", "--log-style=record", "--log-color=false"]
    if not has_cores:
        told.append("--num-cpus=0")
    shared = os.statvfs("/dev/shm")  # noqa: S108
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    store = min(SHARED_SHARE * shared.f_bavail * shared.f_frsize, MACHINE_SHARE * machine)
    told.append(f"--object-store-memory={int(store)}")
    return [sys.executable, "-m", "ray.scripts.scripts", "start", *told]


def _end(process: subprocess.Popen[bytes], seconds: float) -> int:
    process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main() -> None:
    stop = StopRequest()
    stop.listen()
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        sys.exit("ray node: RAY_ADDRESS=HOST:PORT, the address of the cluster's head, is not set")
    try:
        require_token()
        parent = load_settings().temporary_dir.absolute() / "ray"
    except (ClusterError, SettingsError) as error:
        sys.exit(f"ray node: {error}")
    if sys.argv[1:] == ["--check"]:  # a container's health check
        sys.exit(0 if node_answers(parent / f"attempt-{socket.gethostname()}") else "ray node: it does not answer")
    sweep(parent)
    with attempt_folder(parent, socket.gethostname()) as folder:
        status = run(address, sys.argv[1:], folder, stop)
    sys.exit(status)


if __name__ == "__main__":
    main()
