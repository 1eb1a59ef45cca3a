"""The programs of an installation that is being killed: started with faults, watched, and their last words kept."""

import subprocess
import time
from pathlib import Path

import httpx

from tests.system.harness import Installation, kill, training_processes_of

LEASE_SECONDS = 3
KILLED = -9
DEATH_SECONDS = 300.0
"""Within which a program comes by the place where it is to die, also on a busy machine."""


class Programs:
    """At most one service and one worker, on one data folder."""

    def __init__(self, folder: Path) -> None:
        self.installation = Installation(folder)
        self.installation.environment["CHARSMITH_LEASE_SECONDS"] = str(LEASE_SECONDS)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._folder = folder

    def start(self, program: str, fault: str = "") -> subprocess.Popen[bytes]:
        """`api` or `worker`, alive; returned at once."""
        log = (self._folder / f"{program}.log").open("ab")
        before = dict(self.installation.environment)
        command = [*self.installation.command, program]
        environment = before | ({"FAULT": fault} if fault else {})
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.running[program] = process
        return process

    def ensure(self, program: str) -> subprocess.Popen[bytes]:
        """The running one, started if there is none."""
        return self.running[program] if self.is_alive(program) else self.start(program)

    def is_ready(self) -> bool:
        """Whether the service answers."""
        try:
            return httpx.get(f"{self.installation.url}/healthz", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def was_killed(self, program: str) -> bool:
        """Whether it has ended by SIGKILL. Raises AssertionError if it ended in another way."""
        code = self.running[program].poll()
        assert code in (None, KILLED), f"the {program} ended with {code}\n{self.last_words()}"
        return code is not None

    def is_alive(self, program: str) -> bool:
        """Whether it was started and has not ended."""
        process = self.running.get(program)
        return process is not None and process.poll() is None

    def training_processes(self) -> list[int]:
        """Of the running worker, those that it trains in."""
        worker = self.running.get("worker")
        return [] if worker is None else training_processes_of(worker.pid)

    def kill(self, program: str) -> None:
        """SIGKILL, and gone; nothing if it is not there."""
        if self.is_alive(program):
            self.running[program].kill()
            self.running[program].wait()

    def stop(self, program: str) -> None:
        """Asked to end, and gone; nothing if it is not there."""
        if self.is_alive(program):
            self.running[program].terminate()
            self.running[program].wait(30)

    def kill_training(self) -> int:
        """How many training processes were killed."""
        found = self.training_processes()
        for pid in found:
            try:
                kill(pid)
            except ProcessLookupError:
                continue
        return len(found)

    def log_size(self, program: str) -> int:
        path = self._folder / f"{program}.log"
        return path.stat().st_size if path.exists() else 0

    def log_since(self, program: str, size: int) -> str:
        """What a program has said since its log was of that size."""
        with (self._folder / f"{program}.log").open("rb") as file:
            file.seek(size)
            return file.read().decode(errors="replace")

    def last_words(self) -> str:
        """The ends of all logs."""
        logs = sorted(self._folder.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_bytes()[-4000:].decode(errors='replace')}" for log in logs)

    def close(self) -> None:
        """Everything that was started is gone."""
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 30
        for process in self.running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.installation.close()
