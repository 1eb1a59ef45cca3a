"""The peak of memory is that of this process, wherever it is asked for."""

import mmap
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from worker import memory
from worker.memory import peak_memory_bytes

TAKEN = 200 * 2**20


def take_and_give_back() -> None:
    with mmap.mmap(-1, TAKEN) as taken:
        for page in range(0, TAKEN, mmap.PAGESIZE):
            taken[page] = 1


@pytest.mark.skipif(not memory.STATUS.exists(), reason="Linux alone has /proc/self/status")
def test_memory_that_was_given_back_still_counts_and_a_parents_does_not() -> None:
    take_and_give_back()
    before = peak_memory_bytes("cpu")
    assert before > TAKEN
    code = "from worker.memory import peak_memory_bytes; print(peak_memory_bytes('cpu'), peak_memory_bytes('cpu'))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = map(int, child.stdout.split())
    assert 0 < first <= second
    assert first < before, "the child took no 200 MiB"


@pytest.mark.parametrize("status", ["", "Name:\tpython\nVmRSS:\t 1000 kB\n", None])
@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_where_the_system_tells_no_peak_its_accounting_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str | None, platform: str, unit: int
) -> None:
    if status is not None:
        (tmp_path / "status").write_text(status)
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory_bytes("cpu") == unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_on_a_cuda_device_its_own_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: {"cuda:1": 12_345}[device])
    assert peak_memory_bytes("cuda:1") == 12_345
