"""A part of the benchmark in a process of its own, in the environment in which a job trains.

Fresh, so that its memory is its own; and the worker gives its training children settings that must be there when a
process starts.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from worker.launch import TRAINING_ENVIRONMENT


def ask(module: str, request: dict[str, Any]) -> list[Any]:
    """What `python -m module` answers to a request: one value for each line."""
    command = [sys.executable, "-m", module, json.dumps(request)]
    environment = os.environ | TRAINING_ENVIRONMENT
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


Asker = Callable[[Any], Any]


@contextlib.contextmanager
def conversation(module: str, request: dict[str, Any], environment: Mapping[str, str | None]) -> Iterator[Asker]:
    """A child that answers one question after another, until the conversation ends. Raises EOFError if it is gone.

    Its environment is the caller's, changed as is said; None takes a variable out.
    """
    command = [sys.executable, "-m", module, json.dumps(request)]
    pipe = subprocess.PIPE
    changed = {name: value for name, value in (os.environ | environment).items() if value is not None}
    with subprocess.Popen(command, env=changed, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def put(question: Any) -> Any:
            with contextlib.suppress(BrokenPipeError):  # it is gone: there is no answer either
                print(json.dumps(question), file=process.stdin, flush=True)
            line = process.stdout.readline()
            if not line:
                raise EOFError(f"{module} ended with {process.wait()}")
            return json.loads(line)

        yield put
        process.stdin.close()


def questions() -> Iterator[Any]:
    """The child's side of a conversation: each is to be answered by one value."""
    return iter(next_question, None)


def next_question() -> Any:
    """The next one, or None when the conversation has ended."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None
