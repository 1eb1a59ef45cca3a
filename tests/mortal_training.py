"""A training in a process of its own that tells its events through a pipe, until it is killed.

Processes are forked from a server that has loaded torch once (multiprocessing's forkserver): each starts in a fraction
of a second and dies as any other.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from models.config import ModelConfig, TrainingConfig
from worker.events import Event, Finished
from worker.launch import TRAINING_ENVIRONMENT

os.environ.update(TRAINING_ENVIRONMENT)  # the server inherits it, as a job does
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["worker.trainer", "models.recurrence", "torch._dynamo"])  # AdamW imports the last


@contextmanager
def mortal_training(
    model: ModelConfig, training: TrainingConfig, text: str, resume: bytes | None
) -> Iterator["MortalTraining"]:
    """One attempt; afterwards its process is gone."""
    receiver, sender = _processes.Pipe(duplex=False)
    settings = (model.as_dict(), training.as_dict(), text, resume)
    process = _processes.Process(target=_train, args=(sender, *settings), daemon=True)
    process.start()
    sender.close()  # the child's alone: its death is the end of the pipe
    try:
        assert process.pid is not None
        yield MortalTraining(process.pid, receiver)
    finally:
        process.kill()
        process.join()
        receiver.close()


class MortalTraining:
    """The parent's side."""

    def __init__(self, pid: int, receiver: Connection) -> None:
        self._pid = pid
        self._receiver = receiver

    def events(self) -> Iterator[Event]:
        """What it tells, until Finished or its death; also what it told before that and was not read yet."""
        while True:
            try:
                event = self._receiver.recv()
            except (EOFError, OSError):  # the latter: it died within a message
                return
            yield event
            if isinstance(event, Finished):
                return

    def kill(self) -> None:
        """SIGKILL, wherever it is."""
        os.kill(self._pid, signal.SIGKILL)


def _train(
    sender: Connection, model: dict[str, Any], training: dict[str, Any], text: str, resume: bytes | None
) -> None:
    import torch

    from worker.batches import Corpus
    from worker.trainer import train

    if resume is None:
        torch.set_num_threads(2)  # a resumed training takes the number from where it was stored
    else:
        torch.set_num_threads(1)
    configs = ModelConfig.from_dict(model), TrainingConfig.from_dict(training)
    for event in train(*configs, Corpus.of(text), resume=resume):
        sender.send(event)
