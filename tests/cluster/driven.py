"""A real Ray cluster on this machine, driven from another process than its own."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.system.harness import children_of, command_of

FORKS_FOLDERS, QUESTIONS_FOLDERS = "attempt-forks-*", "attempt-question-*"
"""Of processes that fork trainings, and of a new place's answer, beside the trainings' own."""
ORDER_SECONDS = 180.0
CLOSE_SECONDS = 90.0
LATER = 400.0
"""A busy machine starts Ray's processes slowly, and two trainings may share a core."""
TOKEN = "a-token-of-the-tests-and-of-nobody-else"


class DrivenCluster:
    """Its program (`tests.cluster.nodes`), what it says, and what of it runs here."""

    def __init__(self, folder: Path, *, nodes: int, cores: int = 1) -> None:
        """So many nodes with so many cores each."""
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with (folder / "nodes.log").open("wb") as log:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.nodes", str(folder), str(cores), str(nodes)],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._hear()

    def order(self, line: str) -> None:
        """One of `tests.cluster.nodes`, done when this returns."""
        assert self._program.stdin is not None
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()
        self._hear()

    def _hear(self) -> None:
        assert self._program.stdout is not None
        ready, _, _ = select.select([self._program.stdout], [], [], ORDER_SECONDS)
        line = self._program.stdout.readline() if ready else ""
        assert line, (self.folder / "nodes.log").read_text()
        told: dict[str, Any] = json.loads(line)
        self.address, self.living = told["address"], told["living"]

    def at_work(self) -> list[int]:
        """The nodes on which a training has files of its own now."""
        return [n for n in self.living if any(map(is_held, self._locks(n)))]

    def _locks(self, node: int) -> list[Path]:
        """Of trainings: a process that forks them has a folder too."""
        found = (self.folder / f"node-{node}").glob("tmp/attempts/attempt-*/lock")
        others = (FORKS_FOLDERS, QUESTIONS_FOLDERS)
        return [lock for lock in found if not any(map(lock.parent.match, others))]

    def raylets(self) -> list[int]:
        """The processes that are its nodes, the head's among them."""
        return [pid for pid in self._processes() if b"/raylet/raylet" in command_of(pid)]

    def actors(self) -> list[int]:
        """The processes in which trainings run."""
        return [pid for pid in self._processes() if command_of(pid).startswith(b"ray::TrainingActor")]

    def trainers(self) -> list[int]:
        """The actors, and all that they have started."""
        return below(self.actors())

    def trainings(self) -> list[int]:
        """The processes that train, from before they know what."""
        return [pid for pid in self.trainers() if name_of(pid) == "training"]

    def _processes(self) -> list[int]:
        return below([self._program.pid])

    def folders(self) -> list[Path]:
        """Of trainings, left or in use."""
        return [lock.parent for node in self.living for lock in self._locks(node)]

    def close(self) -> None:
        processes = {pid: command_of(pid) for pid in self._processes()}
        try:
            self._program.communicate(timeout=CLOSE_SECONDS)
        finally:  # whatever could not be ended in order would take the machine from the tests that follow
            for pid, command in processes.items():
                if command and command_of(pid) == command:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self._program.wait()


def below(pids: Sequence[int]) -> list[int]:
    """These processes and all that descend from them."""
    found = [*pids]
    for pid in found:
        found += children_of(pid)
    return found


def name_of(pid: int) -> str:
    """As `top` shows it; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_held(lock: Path) -> bool:
    """Whether a living training holds it; one that was killed leaves its folder to be swept by the next.

    Looked up, since whoever tries to take it keeps it from others for that moment.
    """
    try:
        inode = lock.stat().st_ino
    except FileNotFoundError:
        return False
    held = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return any(words[1] == "FLOCK" and words[5].endswith(f":{inode}") for words in held if words[1] != "->")
