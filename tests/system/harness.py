"""Real processes on a fresh data folder: what `charsmith` starts, seen from outside over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.databases import give_back, on_server

START_SECONDS = 60.0
STOP_SECONDS = 30.0
TEXT = "".join(f"{n} green bottles hanging on the wall, and if one should fall\n" for n in range(400))
SMALL = {"cell": "gru", "hidden_size": 32, "embedding_size": 16, "dropout": 0.1}
FINISHED = {"succeeded", "failed", "cancelled"}

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = 60.0) -> T:
    """What `probe` finds, asked again until the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {seconds:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """A running service, called over HTTP as a user would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def logs(self) -> str:
        """What its programs have said; for messages of failed assertions."""
        return ""

    def wait_until_ready(self, workers: int = 1) -> None:
        def ready() -> bool | None:
            try:
                answer = self.http.get("/readyz")
            except httpx.HTTPError:
                return None
            return (answer.is_success and len(answer.json()["workers"]) >= workers) or None

        wait_for("the service", ready, START_SECONDS)

    def upload(self, text: str = TEXT, name: str = "bottles") -> dict[str, Any]:
        answer = self.http.post("/corpora", files={"file": ("bottles.txt", text.encode())}, data={"name": name})
        assert answer.is_success, answer.text
        return answer.json()

    def submit(self, *, model: dict[str, Any] = SMALL, **training: Any) -> dict[str, Any]:
        """A small job on the corpus `bottles`."""
        training = {"batch_size": 8, "sequence_length": 32, "evaluate_every": 20, **training}
        answer = self.http.post("/jobs", json={"corpus": "bottles", "model": model, "training": training})
        assert answer.status_code == 202, answer.text
        return answer.json()

    def job(self, job_id: str) -> dict[str, Any]:
        return self.http.get(f"/jobs/{job_id}").json()

    def wait_for_status(self, job_id: str, *statuses: str, seconds: float = 60.0) -> dict[str, Any]:
        def probe() -> dict[str, Any] | None:
            job = self.job(job_id)
            unexpected = job["status"] in FINISHED and job["status"] not in statuses
            assert not unexpected, f"{job['status']} instead of {statuses}: {job['error']}\n{self.logs()}"
            return job if job["status"] in statuses else None

        return wait_for(f"{job_id} to be {' or '.join(statuses)}", probe, seconds)

    def wait_for_step(self, job_id: str, step: int, seconds: float = 60.0) -> dict[str, Any]:
        """The job once it has a checkpoint at `step` or later."""

        def probe() -> dict[str, Any] | None:
            job = self.job(job_id)
            assert job["status"] not in FINISHED, f"{job['status']} already: {job['error']}\n{self.logs()}"
            return job if self.latest_step(job) >= step else None

        return wait_for(f"step {step} of {job_id}", probe, seconds)

    def latest_step(self, job: dict[str, Any]) -> int:
        return -1 if not job["model_id"] else int(self.http.get(f"/models/{job['model_id']}").json()["latest_step"])

    def weights(self, job: dict[str, Any], step: int) -> bytes:
        """The bytes of a checkpoint file."""
        answer = self.http.get(f"/models/{job['model_id']}@{step}/download")
        assert answer.is_success, answer.text
        return answer.content

    def losses(self, job_id: str) -> list[tuple[int, float | None, float | None]]:
        rows = self.http.get(f"/jobs/{job_id}/metrics").json()["data"]
        return [(row["step"], row["train_loss"], row["val_loss"]) for row in rows]


class Installation(Service):
    """One data folder, and the programs that a test starts on it. All are gone when the test ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.environment = {name: v for name, v in os.environ.items() if not name.startswith("CHARSMITH_")} | {
            "CHARSMITH_DATA_DIR": str(folder / "data"),
            "CHARSMITH_PORT": str(self.port),
            "CHARSMITH_LEASE_SECONDS": "3",
            "CHARSMITH_TORCH_THREADS": "1",
            **on_server(folder),
        }
        self.command = [sys.executable, "-m", "app.cli"]
        self.programs: list[subprocess.Popen[bytes]] = []

    @property
    def database_url(self) -> str:
        """The address of the database that its programs find by their settings."""
        default = f"sqlite:///{self.folder / 'data' / 'charsmith.db'}"
        return self.environment.get("CHARSMITH_DATABASE_URL", default)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """`charsmith <arguments>`, its output in a file of the folder."""
        log = (self.folder / f"{arguments[0]}-{len(self.programs)}.log").open("wb")
        command = [*self.command, *arguments]
        program = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.programs.append(program)
        return program

    def start_api(self) -> subprocess.Popen[bytes]:
        program = self.start("api")
        self.wait_until_ready(workers=0)
        return program

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def has_said(self, words: str) -> bool:
        """Whether one of its programs has logged that, however long ago."""
        return any(words in path.read_text() for path in self.folder.glob("*.log"))

    def close(self) -> None:
        self.http.close()
        for program in self.programs:
            if program.poll() is None:
                program.terminate()
        for program in self.programs:
            try:
                program.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
        if url := self.environment.get("CHARSMITH_DATABASE_URL"):
            give_back(url)


@contextmanager
def serving(folder: Path) -> Iterator[Installation]:
    """A running service with a worker, and nothing stored."""
    made = Installation(folder)
    try:
        made.start("serve")
        made.wait_until_ready()
        yield made
    finally:
        made.close()


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def training_processes_of(worker: int) -> list[int]:
    """Those that a worker trains in: its own children, or forked from a server that is its child."""
    children = children_of(worker)
    servers = [pid for pid in children if b"worker.fork_server" in command_of(pid)]
    return [pid for pid in children if b"worker.child" in command_of(pid)] + [
        pid for server in servers for pid in children_of(server)
    ]


def command_of(pid: int) -> bytes:
    """What a process was started with; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
