"""`charsmith train` on a running service with a worker: watched to its end, and left by Ctrl-C."""

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import TEXT, Installation

pytestmark = pytest.mark.system

SMALL = ["--cell", "gru", "--hidden-size", "32", "--embedding-size", "16", "--batch-size", "8"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "bottles.txt"
    file.write_text(TEXT)
    return file


def test_a_training_is_watched_to_its_end_with_samples_beside_the_json(running: Installation, text: Path) -> None:
    done = subprocess.run(
        [
            *running.command,
            "train",
            str(text),
            *SMALL,
            "--steps",
            "40",
            "--set",
            "training.evaluate_every=20",
            "--json",
        ],
        env=running.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "succeeded"
    assert "step 20  val loss" in done.stderr


def test_ctrl_c_leaves_the_job_running_and_says_how_to_stop_it(running: Installation, text: Path) -> None:
    watching: subprocess.Popen[Any] = subprocess.Popen(
        [*running.command, "train", str(text), *SMALL, "--steps", "1000000", "--set", "training.evaluate_every=20"],
        env=running.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A run in the background of a shell has it ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    running.programs.append(watching)  # ended with the others if an assertion fails
    assert watching.stdout is not None
    job_id = watching.stdout.readline().split()[0]
    running.wait_for_status(job_id, "running")
    running.wait_for_step(job_id, 1)
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert f"`charsmith jobs cancel {job_id}` stops it" in said
    assert running.job(job_id)["status"] == "running"

    asked = subprocess.run(
        [*running.command, "jobs", "cancel", job_id],
        env=running.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    running.wait_for_status(job_id, "cancelled")
    watched = subprocess.run(
        [*running.command, "jobs", "watch", job_id], env=running.environment, capture_output=True, text=True, timeout=60
    )
    assert watched.returncode == 1
    assert "cancelled: by request" in watched.stderr


class Terminal:
    """A person's: a program runs in it, what it shows is kept, and what is typed reaches it."""

    def __init__(self, running: Installation, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, 120))
        self.program: subprocess.Popen[Any] = subprocess.Popen(
            [*running.command, *arguments],
            env=running.environment | {"TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: self._take(theirs),
        )
        os.close(theirs)
        running.programs.append(self.program)
        self.shown = ""

    @staticmethod
    def _take(theirs: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    def wait_for(self, text: str) -> None:
        """Until it is shown. Raises AssertionError after two minutes, or when the program has ended without it."""
        ends_at = time.monotonic() + 120
        while text not in self.shown:
            assert time.monotonic() < ends_at, self.shown
            if select.select([self._ours], [], [], 1)[0]:
                try:
                    self.shown += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:  # Linux's way to say that nobody has it open any more
                    assert text in self.shown, self.shown
                    return

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)


def test_in_a_terminal_a_bar_moves_and_ctrl_c_leaves_the_job_running(running: Installation, text: Path) -> None:
    endless = ["--steps", "1000000", "--set", "training.evaluate_every=20"]
    terminal = Terminal(running, "train", str(text), *SMALL, *endless)
    for text_of_person in ("step 20", "val loss", "chars/s", "\x1b[?25l", "━"):
        terminal.wait_for(text_of_person)
    drawn = terminal.shown.count("chars/s")
    terminal.wait_for("step 100")
    assert terminal.shown.count("chars/s") > drawn, "the bar is drawn anew"

    terminal.type(b"\x03")
    terminal.wait_for("stops it")
    terminal.wait_for("\x1b[?25h")  # the cursor is there again
    assert terminal.program.wait(30) == 130
    job = running.http.get("/jobs?limit=1").json()["data"][0]
    assert job["status"] == "running"
    running.http.post(f"/jobs/{job['id']}/cancel").raise_for_status()
    running.wait_for_status(job["id"], "cancelled")
