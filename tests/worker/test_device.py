"""What the worker is told of its device, by another process."""

from pathlib import Path

import pytest

from models.memory_estimate import available_memory_bytes
from worker.__main__ import find_device


@pytest.fixture(autouse=True)
def this_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process runs it, as `app.processes` sees to for a worker."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def test_a_worker_on_the_cpu_has_the_memory_of_its_machine_or_container() -> None:
    assert find_device("cpu") == ("cpu", available_memory_bytes())


def test_a_device_that_is_not_there_ends_the_start() -> None:
    with pytest.raises(SystemExit, match="CHARSMITH_DEVICE"):
        find_device("cuda:97")
