"""A stack with a Ray cluster in it: what runs in which container, and what becomes of one that is killed."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.compose.engine import Composed, run, step
from tests.system.harness import wait_for

AGAIN_SECONDS = 180.0
"""A node notices after a minute that its head is another one; then it starts anew."""


class RayStack(Composed):
    """Containers go by service and number: `node-1`."""

    def container(self, name: str) -> dict[str, Any]:
        service, _, number = name.rpartition("-")
        return self.inspect(service, int(number))

    def processes(self, name: str) -> dict[int, tuple[str, str]]:
        """Of a container: user and command of each, by its id on this machine."""
        lines = run("docker", "top", f"{self.project}-{name}", "-eo", "uid,pid,args").splitlines()[1:]
        return {int(pid): (uid, command) for uid, pid, command in (line.split(maxsplit=2) for line in lines)}

    def at_work(self) -> list[str]:
        """The nodes on which an actor trains."""
        nodes = [name for name in ("node-1", "node-2") if self.container(name)["State"]["Running"]]
        return [name for name in nodes if self._trains(name)]

    def _trains(self, name: str) -> bool:
        return any(command.startswith("ray::Train") for _, command in self.processes(name).values())

    def kill_from_outside(self, name: str) -> None:
        """Its main process, as a crash would; the restart policy does not heed `docker kill`."""
        os.kill(self.container(name)["State"]["Pid"], signal.SIGKILL)

    @contextmanager
    def started_again(self, *names: str) -> Iterator[None]:
        """Within, they are made to end; afterwards each is back and healthy."""
        before = {name: self.container(name)["RestartCount"] for name in names}
        yield
        for name in names:
            with step(f"  {name} is back"):
                wait_for(
                    f"{name} to be back", lambda name=name: self._is_back(name, before[name]) or None, AGAIN_SECONDS
                )

    def _is_back(self, name: str, restarts: int) -> bool:
        now = self.container(name)
        return now["RestartCount"] > restarts and now["State"].get("Health", {}).get("Status") == "healthy"
