"""The training process: encodes the corpus, runs `train()`, sends its events to the worker that started it.

Knows no database. It ends when its parent does. A refusal (the job cannot succeed) is its last message; anything else
that ends it early counts as a crash, which the worker tries again.
"""

import codecs
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from app import logs
from app.fault_points import arm, fault_point
from app.processes import end_with_parent, parent_socket
from models.checkpoint_header import read_info
from models.config import ModelConfig, TrainingConfig
from models.vocabulary import EmptyText, Vocabulary, normalize_pieces
from worker.batches import Corpus, CorpusTooShort, encode_corpus
from worker.device import choose_device
from worker.events import Event, Finished, Ticked
from worker.launch import DISK_FULL, NO_ROOM, PauseRequest, TrainingRefusal, TrainingTask
from worker.trainer import Diverged, train

READ_BYTES = 1 << 20
TICK_SECONDS = 0.5
"""Ticks tell a hung step from a slow one; twice a second is plenty."""


def read_pieces(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in pieces, line endings as they are."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


class PausedWhileLoading(Exception):
    """A pause was asked for before training began: there is nothing to store that is not stored already."""


def load_corpus(task: TrainingTask, moved: Callable[[], None]) -> Corpus:
    """The encoded corpus, memory-mapped. Two passes over the text: what characters there are, then their ids.

    What a checkpoint to start from knows is in the vocabulary as well. `moved` is called after every piece; what it
    raises ends the loading. Raises CorpusTooShort if nothing is left of the text once it is normalized.
    """
    text_path, ids_path = Path(task.text_path), Path(task.folder) / "corpus.ids"
    normalization = ModelConfig.from_dict(task.model).normalization

    def pieces() -> Iterator[str]:
        for piece in read_pieces(text_path):
            yield piece
            moved()

    try:
        vocabulary = Vocabulary.of(normalize_pieces(pieces(), normalization))
    except EmptyText:
        minimum = TrainingConfig.from_dict(task.training).minimum_characters
        raise CorpusTooShort(0, minimum, normalization) from None
    if task.from_checkpoint is not None:
        vocabulary = vocabulary.extended(read_info(task.from_checkpoint).vocabulary.characters)
    encode_corpus(normalize_pieces(pieces(), normalization), ids_path, vocabulary)
    text_path.unlink()  # the same text twice on disk is once too often
    return Corpus.open(ids_path, vocabulary, task.corpus_sha256)


def run(task: TrainingTask, connection: Connection, pause_requested: threading.Event) -> None:
    """Train and send every event; ticks are thinned out."""
    torch.set_num_threads(task.threads)
    send = _thinned(connection)

    def loading() -> None:
        send(Ticked("loading", 0))
        if pause_requested.is_set():
            raise PausedWhileLoading

    try:
        loading()
        corpus = load_corpus(task, loading)
    except PausedWhileLoading:
        send(Finished(0, "paused", None, None))
        return
    events = train(
        ModelConfig.from_dict(task.model),
        TrainingConfig.from_dict(task.training),
        corpus,
        device=choose_device(task.device),
        resume=task.resume_point,
        from_checkpoint=task.from_checkpoint,
        pause_requested=pause_requested.is_set,
    )
    for event in events:
        send(event)


def _thinned(connection: Connection) -> Callable[[Event], None]:
    """Sends events, but of ticks only as many as a watch for hung steps needs."""
    last_tick = -math.inf

    def send(event: Event) -> None:
        nonlocal last_tick
        if isinstance(event, Ticked):
            if time.monotonic() - last_tick < TICK_SECONDS:
                return
            last_tick = time.monotonic()
        else:
            fault_point("training.event")
        connection.send(event)

    return send


def _listen(connection: Connection, pause_requested: threading.Event) -> None:
    try:
        while isinstance(connection.recv(), PauseRequest):
            pause_requested.set()
    except (EOFError, OSError):
        return  # the worker is gone; end_with_parent sees to the rest


def _refusal(error: Exception) -> TrainingRefusal | None:
    """Why trying again would not help; None where it might."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, Diverged):
        return TrainingRefusal("diverged", str(error), trace)
    if isinstance(error, CorpusTooShort):
        return TrainingRefusal("corpus_too_short", str(error), trace)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return TrainingRefusal("out_of_memory", "the network and its batch do not fit into memory", trace)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return TrainingRefusal(DISK_FULL, "the disk has no room for the encoded text", trace)
    if isinstance(error, ValueError):
        return TrainingRefusal("invalid", str(error), trace)
    return None


def main() -> None:
    end_with_parent()
    ours = parent_socket()
    logs.set_up_as_told("training")
    train_for(ours)


def train_for(worker: socket.socket) -> None:
    """What the worker tells over the socket, from the task on. Exits with 1 when the worker is gone."""
    connection = Connection(worker.detach())
    try:
        task = connection.recv()
    except (EOFError, ConnectionResetError):
        sys.exit(1)  # the worker is gone already
    os.environ["TMPDIR"] = task.folder
    logs.REQUEST_ID.set(task.request_id)
    arm(os.environ)
    pause_requested = threading.Event()
    threading.Thread(target=_listen, args=(connection, pause_requested), daemon=True).start()
    try:
        run(task, connection, pause_requested)
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(1)  # the worker is gone, and says so itself or has been killed: nobody is left to tell
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        connection.send(refusal)
    # At once, while the worker still records what was told: it waits for the end, and taking an interpreter and its
    # memory apart takes long.
    os._exit(0)


if __name__ == "__main__":
    main()
