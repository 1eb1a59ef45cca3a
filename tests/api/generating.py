"""A real service with a real generation process and tiny networks, for tests that generate."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch

from app.generation.streams import Generation, Samples
from app.main import create_app
from app.schemas import GenerateRequest
from app.server import make_server
from app.settings import Settings
from app.store.blobs import write_blob
from app.store.database import Database
from app.store.opening import open_database
from app.store.trained_models import Model, add_model
from models.checkpoint import encode_checkpoint
from models.checkpoint_header import CheckpointInfo
from models.config import ModelConfig, Normalization
from models.rnn import CharRNN
from models.vocabulary import Vocabulary
from tests.databases import database_of

ALPHABET = "\n abcdefghijklmnopqrstuvwxyzé日"
DEADLINE_SECONDS = 60.0
"""The first service of a fresh clone compiles for a while."""


def tiny_checkpoint(
    *, characters: str = ALPHABET, normalization: Normalization = "none", hidden_size: int = 8
) -> bytes:
    """The file of a real network with random weights, large enough that it writes no monotone text."""
    config = ModelConfig("gru", hidden_size, 1, embedding_size=4, normalization=normalization)
    torch.manual_seed(5)
    network = CharRNN(config, len(characters))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return encode_checkpoint(network, CheckpointInfo(config, Vocabulary(sorted(characters)), step=70))


def store_model(database: Database, name: str, data: bytes) -> Model:
    """A model whose only checkpoint is this file."""
    info = {
        "config": ModelConfig("gru", 8, 1, embedding_size=4).as_dict(),
        "vocabulary_size": 1,
        "parameters": 1,
        "step": 70,
        "train_loss": None,
        "val_loss": None,
    }
    return add_model(database, write_blob(database, [data]), name, info)


@dataclass
class GeneratingService:
    """A running service, seen from outside (`http`, `connect`) and from within."""

    http: httpx.Client
    database: Database
    generation: Generation
    loop: asyncio.AbstractEventLoop
    model: Model
    port: int

    def generate(self, kind: str = "text/plain", **fields: Any) -> httpx.Response:
        return self.http.post("/generate", json={"model": "tiny"} | fields, headers={"Accept": kind})

    def count(self, what: str) -> int:
        """Of the generation process' counts, as they are now."""
        counts = asyncio.run_coroutine_threadsafe(self.generation.counts(), self.loop)
        return counts.result(DEADLINE_SECONDS)[what]

    def rows(self) -> int:
        """Rows that the generation process holds now."""
        return self.count("rows")

    def wait_for_rows(self, number: int) -> None:
        wait_until(lambda: self.generation.open_streams == number and self.rows() == number)

    def connect(
        self,
        query: str,
        kind: str = "text/plain",
        receive_bytes: int | None = None,
        segment_bytes: int | None = None,
    ) -> socket.socket:
        """A raw connection that has asked for `GET /generate?query` and read nothing yet.

        With the smallest buffer and segments what is not read waits in the service: the kernel itself would keep
        megabytes of it.
        """
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if segment_bytes is not None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
        connection.settimeout(DEADLINE_SECONDS)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(
            f"GET /generate?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: {kind}\r\nConnection: close\r\n\r\n".encode()
        )
        return connection


async def opened(generation: Generation, asked: GenerateRequest, blob_id: str) -> Samples:
    """Admitted streams, to be evicted in the end."""
    samples = generation.hold_places(asked.n)
    await generation.admit(samples, blob_id, asked.row_fields(seed=1))
    return samples


def unsigned(state: str) -> str:
    return state


def reset(connection: socket.socket) -> None:
    """Leave as a crashed client does: RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def rest_of(connection: socket.socket) -> bytes:
    """All that there is to read, until the other side has ended."""
    received = b""
    while data := connection.recv(65536):
        received += data
    connection.close()
    return received


def wait_until(true: Callable[[], bool]) -> None:
    """Return as soon as it is true; fail if that takes too long."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)


@contextlib.contextmanager
def generating_service(data_dir: Path, **settings: int) -> Iterator[GeneratingService]:
    """A service with the model `tiny`, until the block ends."""
    made = Settings(data_dir=data_dir, database_url=database_of(data_dir), **settings)  # type: ignore[arg-type]
    database = open_database(made.resolved_database_url)
    model = store_model(database, "tiny", tiny_checkpoint())
    app = create_app(made, database=database)
    server = make_server(made, app)
    # asyncio turns Nagle's delays off only where the protocol is named, as a server's own listeners do.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_SECONDS, trust_env=False) as http:
                wait_until(lambda: app.state.generation.alive)
                loop = app.state.generation.loop
                yield GeneratingService(http, database, app.state.generation, loop, model, port)
        finally:
            server.should_exit = True
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()
            database.close()
