"""Machine code is taken up again only where it is that of these files, and two that compile do not mix theirs up."""

import json
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from models import machine_code, walks
from models.machine_code import folder_of


@pytest.mark.parametrize("changed", ["callee.py", "caller.py", "a version"])
def test_a_change_of_any_file_or_version_has_a_folder_of_its_own(changed: str, tmp_path: Path) -> None:
    files = [tmp_path / "callee.py", tmp_path / "caller.py"]
    for file in files:
        file.write_text("one")
    before = folder_of(tmp_path, files, ["1.0"])
    assert folder_of(tmp_path, files, ["1.0"]) == before
    if changed != "a version":
        (tmp_path / changed).write_text("two")
    assert folder_of(tmp_path, files, ["1.0" if changed != "a version" else "1.1"]) != before


def test_every_file_with_compiled_functions_counts() -> None:
    texts = {file: file.read_text(encoding="utf-8") for file in machine_code.HERE.glob("*.py")}
    compiled = {file for file, text in texts.items() if "\n@compiled(" in text or "\n@njit(" in text}
    constants = {machine_code.HERE / "sampling.py"}
    assert compiled | constants == set(machine_code.FILES)
    assert walks.gru_forward._cache.cache_path.startswith(numba.config.CACHE_DIR)


def test_a_full_disk_fails_no_call() -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    machine_code._if_it_can(full)("signature", "code")


COMPILE = """
import sys, numpy as np
from models import gates
dtype = np.dtype(sys.argv[1])
sys.stdin.readline()
sums = np.zeros((1, 4), np.float32)
gates.add_rows(0, np.ones((1, 4), dtype).view(np.uint16) if dtype == np.int16 else np.ones((1, 4), dtype), sums)
print(sums.tolist())
"""


def test_processes_that_compile_at_the_same_time_keep_each_their_own(tmp_path: Path) -> None:
    """Whatever is found afterwards is what was asked for: numba alone gave both the name of the next free number."""
    kinds, pipe = ("float32", "int16", "float32", "int16"), subprocess.PIPE
    answers = []
    for _ in range(2):  # compiling, then with what is kept
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", COMPILE, kind],
                cwd=machine_code.HERE.parent,
                env={"NUMBA_CACHE_DIR": str(tmp_path), "PATH": ""},
                stdin=pipe,
                stdout=pipe,
                text=True,
            )
            for kind in kinds
        ]
        for process in processes:
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
        answers.append([process.communicate()[0] for process in processes])
    assert answers[0] == answers[1]
    assert json.loads(answers[0][0]) == [[1.0] * 4]
    assert json.loads(answers[0][1]) == [[2.0**-133] * 4]  # the bits 0x0001 as bfloat16
    kept = list(tmp_path.rglob("*.nbc"))
    assert len(kept) >= 2
    assert all(len(file.stem) == 32 for file in kept), "a name of its own, not the next free number"
