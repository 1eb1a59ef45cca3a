"""A training process that the kernel ends for lack of memory: a real control group, a real kill."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import once
from tests.system.harness import Installation

pytestmark = [once, pytest.mark.system]

MIB = 1 << 20
GROUPS = Path("/sys/fs/cgroup")
TOO_LITTLE = 150 * MIB
"""A worker has some 60 MiB, its training process, once it has imported torch, more than 200."""


class Group:
    """A control group with a limit of memory. Raises OSError where this process may not make one."""

    def __init__(self) -> None:
        name = f"charsmith-test-{os.getpid()}"
        unified = (GROUPS / "cgroup.controllers").exists()
        self._folder = GROUPS / name if unified else GROUPS / "memory" / name
        self._limit = "memory.max" if unified else "memory.limit_in_bytes"
        self._none = "max" if unified else "-1"
        self._folder.mkdir()

    def limit(self, size: int | None) -> None:
        (self._folder / self._limit).write_text(self._none if size is None else str(size))

    def take(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        self._folder.rmdir()


@pytest.fixture
def group() -> Iterator[Group]:
    made = None
    try:
        made = Group()
        made.limit(TOO_LITTLE)
    except OSError as error:
        if made is not None:
            made.remove()
        pytest.skip(f"no control group with a limit of memory can be made here: {error}")
    yield made
    made.remove()


def test_a_job_that_the_kernel_ends_twice_for_lack_of_memory_fails_by_name_and_the_next_one_runs(
    group: Group, installation: Installation
) -> None:
    installation.start_api()
    installation.upload()
    worker = installation.start("worker")
    installation.wait_until_ready(workers=1)
    group.take(worker.pid)

    job = installation.wait_for_status(installation.submit(steps=20)["id"], "failed")
    assert (job["error"]["code"], job["attempt"]) == ("out_of_memory", 2), job["error"]
    assert worker.poll() is None
    assert installation.has_said("for lack of memory")

    group.limit(None)
    installation.wait_for_status(installation.submit(steps=20)["id"], "succeeded")
    installation.close()  # a group can be removed when it is empty
