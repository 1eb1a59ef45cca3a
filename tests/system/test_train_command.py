"""`charsmith train` on a running service with a worker: watched to its end, and left by Ctrl-C."""

import json
import signal
import subprocess
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
