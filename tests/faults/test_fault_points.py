"""Fault points: what the variable may say, that a place does what it is told, and that it costs nothing otherwise."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import fault_points
from app.fault_points import POINTS, FaultError, FaultRaised, arm, count_passings, fault_point

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm({})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("job.queued", "name:nth:action"),
        ("job.queued:1:kill:2", "name:nth:action"),
        ("job.queue:1:kill", "known are blob.opened, "),
        ("job.queued:0:kill", "whole number from 1 on, not '0'"),
        ("job.queued:x:kill", "whole number"),
        ("job.queued:1:die", "known are kill, stop, raise, and sleep=SECONDS"),
        ("job.queued:1:sleep=", "sleep=SECONDS"),
        ("job.queued:1:sleep=-1", "sleep=SECONDS"),
        ("job.queued:1:sleep=nan", "sleep=SECONDS"),
        ("job.queued:1:kill,", "name:nth:action"),
    ],
)
def test_a_malformed_fault_is_refused_and_told_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(FaultError, match=re.escape(said)):
        arm({"FAULT": text})


@pytest.mark.parametrize("program", [["-m", "app.cli", "api"], ["-m", "worker"]])
def test_a_program_that_is_told_of_an_unknown_place_does_not_start(program: list[str], tmp_path: Path) -> None:
    environment = {"FAULT": "nowhere:1:kill", "CHARSMITH_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "FAULT: no fault point 'nowhere'; known are blob.opened," in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_fault_happens_at_its_passing_alone_and_several_may_be_named() -> None:
    arm({"FAULT": "job.queued:2:raise, corpus.named:1:sleep=0.05"})
    fault_point("job.queued")
    fault_point("job.deleted")
    with pytest.raises(FaultRaised, match=r"job\.queued"):
        fault_point("job.queued")
    fault_point("job.queued")
    before = time.monotonic()
    fault_point("corpus.named")
    assert time.monotonic() - before >= 0.05


@pytest.mark.parametrize("action", ["kill", "stop"])
def test_a_process_ends_or_stands_still_where_it_is_told_to(action: str) -> None:
    body = f"from app.fault_points import *; arm({{'FAULT': 'job.queued:1:{action}'}}); fault_point('job.queued')"
    process = subprocess.Popen([sys.executable, "-c", body], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        _, ended = os.waitpid(process.pid, os.WUNTRACED)
        assert (os.WIFSTOPPED(ended), os.WIFSIGNALED(ended)) == (action == "stop", action == "kill")
    finally:
        process.kill()
        process.wait()


def test_every_place_in_the_code_is_registered_and_every_registered_one_is_in_the_code() -> None:
    sources = [path for folder in ("app", "worker", "models") for path in (ROOT / folder).rglob("*.py")]
    placed = [name for path in sources for name in re.findall(r'fault_point\("([^"]+)"\)', path.read_text())]
    assert sorted(placed) == sorted(POINTS), "each in one place, so that a name tells where"


def test_a_place_that_nobody_registered_is_a_bug() -> None:
    count_passings()
    with pytest.raises(AssertionError, match="no fault point"):
        fault_point("nowhere")


def test_without_faults_a_place_costs_a_ten_thousandth_of_the_transaction_beside_it() -> None:
    assert fault_points._plan is None
    times = []
    for _ in range(5):
        before = time.perf_counter()
        for _ in range(100_000):
            fault_point("progress.recorded")
        times.append((time.perf_counter() - before) / 100_000)
    assert min(times) < 2e-6, "measured: 40 ns; a transaction with its fsync takes some milliseconds"
