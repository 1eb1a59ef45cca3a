"""`python -m worker.fork_server`: has loaded all that a training on the CPU needs, and forks training processes.

Knows no task. Invariant, without which forking is not safe: it runs nothing of what it has loaded, so that it has no
thread that works, no parallel region behind it and no device.
"""

import contextlib
import importlib
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from app import logs
from app.forking import ending_with, forked
from app.processes import parent_socket


def load() -> Callable[[socket.socket], None]:
    """What a forked process does, with all that it imports, now or at its first step."""
    import numpy.random
    import torch

    from models.machine_code import load_compiler
    from worker.child import train_for

    importlib.import_module("torch._dynamo")  # as torch's optimizers do
    load_compiler()

    def train(worker: socket.socket) -> None:
        numpy.random.seed()  # else all forked processes had the same numbers; Python's own sees to that itself
        torch.default_generator.seed()
        train_for(worker)

    return train


def main() -> None:
    requests = parent_socket()
    logs.set_up_as_told("training")
    with ending_with(requests):
        train = load()
    if (worker := forked(requests)) is None:
        os._exit(0)  # at once: what it forked ends with it
    tempfile.tempdir = None  # the server's own
    with contextlib.suppress(OSError):  # what `top` shows; the command line is the server's
        Path("/proc/self/comm").write_text("training")
    train(worker)


if __name__ == "__main__":
    main()
