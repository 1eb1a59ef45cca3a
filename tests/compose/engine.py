"""A stack of the compose files on a real engine, under a project name of its own."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.system.harness import Service, free_port

ROOT = Path(__file__).parents[2]
STREAMS = "63"
"""A setting of ours, to be found in the containers."""


@contextmanager
def step(what: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    print(f"{time.monotonic() - begin:7.1f} s  {what}")


def run(*command: str, seconds: float = 1200, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def succeeds(*command: str) -> bool:
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


class Composed(Service):
    """The stack of these files, on a free port."""

    def __init__(self, project: str, *files: str, **settings: str) -> None:
        self.project = project
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.settings = {
            "COMPOSE_PROJECT_NAME": project,
            "COMPOSE_FILE": os.pathsep.join(str(ROOT / file) for file in files),
            "IMAGE_TAG": "test",
            "CHARSMITH_PORT": str(self.port),
            "CHARSMITH_MAX_STREAMS": STREAMS,
            **settings,
        }

    def compose(self, *arguments: str) -> str:
        return run("docker", "compose", *arguments, **self.settings)

    def up(self) -> None:
        self.compose("up", "--wait", "--no-build")

    def as_documented(self, command: str, folder: Path) -> str:
        """A shell command of the documentation, in a folder of its own, with the image that is there."""
        command = re.sub(r"\bup( --build)? --wait", "up --wait --no-build", command)
        return run("bash", "-c", command, cwd=folder, **self.settings)

    def inspect(self, service: str, number: int = 1) -> dict:
        return json.loads(run("docker", "inspect", f"{self.project}-{service}-{number}"))[0]

    def logs(self) -> str:
        return self.compose("logs", "--tail", "40")


@contextmanager
def running(stack: Composed) -> Iterator[Composed]:
    """The stack, up; everything of it is gone afterwards."""
    try:
        with step("up --wait"):
            stack.up()
        yield stack
    finally:
        stack.http.close()
        with step("down"):
            stack.compose("down", "--volumes", "--timeout", "30")


def assert_keeps_a_secret(stack: Composed, settings: str, folder: Path, files: Sequence[str], secret: str) -> None:
    """The command that a page has for it writes a `.env` of these files and a long secret, for its owner alone."""
    stack.as_documented(settings, folder)
    written = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())
    assert written["COMPOSE_FILE"] == ":".join(files)
    assert len(written[secret]) == 48
    assert (folder / ".env").stat().st_mode & 0o077 == 0
