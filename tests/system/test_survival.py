"""What dies comes back, and loses nothing: real processes, real signals, one real database file."""

import os
import signal
import subprocess
import time

import pytest

from app.forking import can_fork
from tests.system.harness import Installation, children_of, command_of, kill, training_processes_of, wait_for

pytestmark = pytest.mark.system

STEPS = 400


@pytest.fixture
def undisturbed(running: Installation) -> dict:
    """The same job as below, left in peace; trained once for the module."""
    jobs = running.http.get("/jobs", params={"status": "succeeded"}).json()["data"]
    return jobs[0] if jobs else running.wait_for_status(running.submit(steps=STEPS)["id"], "succeeded")


def same_as_undisturbed(running: Installation, expected: dict, installation: Installation, job: dict) -> None:
    assert installation.losses(job["id"]) == running.losses(expected["id"])
    assert installation.weights(job, STEPS) == running.weights(expected, STEPS)


def test_a_job_whose_worker_is_killed_is_taken_over_and_ends_bit_for_bit_the_same(
    running: Installation, undisturbed: dict, installation: Installation
) -> None:
    first, job = training(installation, 20)
    orphans = [*children_of(first.pid), *training_processes_of(first.pid)]
    assert training_processes_of(first.pid), "the worker trains in a process of its own"
    first.kill()
    first.wait()
    installation.start("worker")
    done = installation.wait_for_status(job["id"], "succeeded")
    assert done["attempt"] == 2
    wait_for("what the killed worker had started to end", lambda: not _any_alive(orphans) or None)
    same_as_undisturbed(running, undisturbed, installation, done)


def training(installation: Installation, step: int) -> tuple[subprocess.Popen[bytes], dict]:
    """A worker, and the job that it trains, which has a checkpoint at `step`."""
    installation.start_api()
    installation.upload()
    worker = installation.start("worker")
    job = installation.submit(steps=STEPS)
    installation.wait_for_step(job["id"], step)
    return worker, job


def _any_alive(pids: list[int]) -> bool:
    states = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                states.append(file.read().rpartition(")")[2].split()[0])
        except OSError:
            continue
    return any(state != "Z" for state in states)


def test_a_job_whose_training_process_is_killed_goes_on_in_the_same_worker(
    running: Installation, undisturbed: dict, installation: Installation
) -> None:
    worker, job = training(installation, 40)
    for pid in training_processes_of(worker.pid):
        assert os.getpriority(os.PRIO_PROCESS, pid) >= os.getpriority(os.PRIO_PROCESS, worker.pid) + 10
        kill(pid)
    done = installation.wait_for_status(job["id"], "succeeded")
    assert done["attempt"] == 2
    assert worker.poll() is None
    same_as_undisturbed(running, undisturbed, installation, done)


@pytest.mark.skipif(not can_fork(), reason="nothing is forked here")
def test_a_job_whose_process_was_forked_from_a_server_that_is_killed_goes_on_in_the_same_worker(
    running: Installation, undisturbed: dict, installation: Installation
) -> None:
    worker, job = training(installation, 20)
    (trains,) = training_processes_of(worker.pid)
    (server,) = children_of(worker.pid)
    kill(server)
    wait_for("the training process to end", lambda: not _any_alive([trains]) or None)
    done = installation.wait_for_status(job["id"], "succeeded")
    assert done["attempt"] == 2
    assert worker.poll() is None
    same_as_undisturbed(running, undisturbed, installation, done)


def test_a_worker_that_is_asked_to_stop_stores_a_resume_point_and_gives_the_job_back(
    running: Installation, undisturbed: dict, installation: Installation
) -> None:
    worker, job = training(installation, 20)
    asked_at = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0, installation.logs()
    assert time.monotonic() - asked_at < 8
    assert installation.job(job["id"])["status"] == "queued"
    installation.start("worker")
    done = installation.wait_for_status(job["id"], "succeeded")
    same_as_undisturbed(running, undisturbed, installation, done)


def test_a_job_that_kills_its_process_every_time_fails_as_a_crash_loop_and_others_run(
    installation: Installation,
) -> None:
    installation.start_api()
    installation.upload()
    worker = installation.start("worker")
    poison = installation.submit(steps=10**9, evaluate_every=10**9)
    innocent = installation.submit(steps=20)
    killed: set[int] = set()

    def kill_each_training_process() -> bool | None:
        for pid in set(training_processes_of(worker.pid)) - killed:
            if installation.job(poison["id"])["progress"].get("step"):
                kill(pid)
                killed.add(pid)
        return installation.job(poison["id"])["status"] == "failed" or None

    wait_for("the poison job to fail", kill_each_training_process, 90)
    assert installation.job(poison["id"])["error"]["code"] == "crash_loop"
    installation.wait_for_status(innocent["id"], "succeeded")


def test_serve_starts_a_killed_worker_again_and_stops_everything_when_asked(installation: Installation) -> None:
    serve = installation.start("serve")
    installation.wait_until_ready()
    workers = [pid for pid in children_of(serve.pid) if b"worker" in command_of(pid)]
    assert len(workers) == 1
    kill(workers[0])

    def another() -> list[int] | None:
        return [p for p in children_of(serve.pid) if b"worker" in command_of(p) and p not in workers] or None

    wait_for("another worker", another)
    everything = children_of(serve.pid)
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(30) == 0, installation.logs()
    wait_for("all children to end", lambda: not _any_alive(everything) or None)


@pytest.mark.parametrize("program", ["api", "worker"])
def test_a_program_that_is_asked_to_stop_while_it_starts_or_afterwards_ends_with_status_0(
    program: str, installation: Installation
) -> None:
    starting = installation.start(program)
    wait_for("its own code to run", lambda: _handles_sigterm(starting.pid))
    starting.send_signal(signal.SIGTERM)
    assert starting.wait(60) == 0, installation.logs()
    started = installation.start_api() if program == "api" else installation.start(program)
    if program == "worker":
        wait_for("it to be ready", lambda: "ready" in installation.logs() or None)
    started.send_signal(signal.SIGTERM)
    assert started.wait(60) == 0, installation.logs()


def _handles_sigterm(pid: int) -> bool | None:
    with open(f"/proc/{pid}/status") as file:
        caught = next(line for line in file if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1)) or None


def test_serve_ends_at_once_when_its_port_is_taken(installation: Installation) -> None:
    installation.start_api()
    serve = installation.start("serve")
    try:
        assert serve.wait(30) != 0
    except subprocess.TimeoutExpired:
        pytest.fail(installation.logs())
    said = next(path for path in installation.folder.glob("serve-*.log")).read_text()
    assert f"charsmith: cannot listen on 127.0.0.1, port {installation.port}: Address already in use" in said
    assert "Application startup complete" not in said
