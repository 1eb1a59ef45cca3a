"""A part of the benchmark in a process of its own, in the environment in which a job trains.

Fresh, so that its memory is its own; and the worker gives its training children settings of the memory allocator that
must be there when a process starts.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from worker.launch import KEEP_MEMORY


def ask(module: str, request: dict[str, Any]) -> list[Any]:
    """What `python -m module` answers to a request: one value for each line."""
    command = [sys.executable, "-m", module, json.dumps(request)]
    environment = os.environ | KEEP_MEMORY
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def request() -> dict[str, Any]:
    """The child's side: what it was asked."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    return asked


def answer(values: Iterable[Any]) -> None:
    """The child's side: the answer, each value as it comes."""
    for value in values:
        print(json.dumps(value), flush=True)
