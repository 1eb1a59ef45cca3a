"""A training process that hangs while its worker lives: the heartbeat goes on, so a watch of its own ends it."""

import os
import signal

import pytest

from tests.databases import once
from tests.forms import FORM
from tests.system.harness import Installation, training_processes_of, wait_for

pytestmark = [
    once,
    pytest.mark.system,
    pytest.mark.forms,
    pytest.mark.skipif(FORM == "short", reason="it waits for twenty times the longest step: TEST_FORM=middle"),
]


def test_a_training_process_that_stands_still_is_ended_and_its_job_goes_on(installation: Installation) -> None:
    installation.environment["CHARSMITH_STALL_SECONDS"] = "10"
    installation.start_api()
    installation.upload()
    worker = installation.start("worker")
    job = installation.submit(steps=10**9)
    installation.wait_for_step(job["id"], 20)
    (hung,) = training_processes_of(worker.pid)
    os.kill(hung, signal.SIGSTOP)

    def attempts() -> int:
        return int(installation.job(job["id"])["attempt"])

    wait_for("another attempt", lambda: attempts() == 2 or None, 200)
    assert hung not in training_processes_of(worker.pid)
    step = installation.latest_step(installation.job(job["id"]))
    installation.wait_for_step(job["id"], step + 20)
    assert worker.poll() is None
    assert installation.has_said("no sign of life")
