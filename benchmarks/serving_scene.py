"""What the serving figures are measured on: services with models, and the clients that ask them.

Everything is a process of its own on loopback: two services with their generation processes, a crowd of clients, one
client that probes, the engine alone, and the plain loop behind the same framework. All are there before anything is
measured; whoever has no turn rests.
"""

import contextlib
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import child
from benchmarks.child import Asker
from benchmarks.crowd import allow_many_files
from benchmarks.plain_service import plain_service, wait_until_it_answers
from benchmarks.sampling import EMBEDDING
from models.checkpoint import encode_checkpoint
from models.checkpoint_header import CheckpointInfo
from models.config import Cell, ModelConfig
from models.rnn import CharRNN
from models.vocabulary import Vocabulary
from tests.system.harness import Installation, children_of, wait_for

ALPHABET = "\n !$&',-.3:;?" + string.ascii_letters
"""The 65 characters of tiny Shakespeare, a byte each."""
WIDE_ALPHABET = "".join(chr(0x10400 + number) for number in range(len(ALPHABET)))
"""As many, four bytes each: buffers fill four times as fast."""
WIDE = "wide"
"""Name of the model that writes them; the others are named by their cells."""
ENDLESS = 1_000_000
"""Characters; as many as may be asked for. Whoever gets to the end asks again."""
ROOM = 16
"""Streams beyond those that run, for what is asked beside."""
OPEN_SECONDS = 60.0
"""Within which every stream must have begun."""
LEAVE_SECONDS = 0.1
"""Until the service has seen that clients are gone, and their places are free."""
UPLOAD_SECONDS = 180.0
"""On a machine where nothing has been compiled yet the first model waits for that; a busy one may answer 503 first."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    hidden: int
    streams: int
    rounds: int
    """Of turns that are compared."""
    turn_seconds: float
    plain: bool
    """Whether the plain loop has turns as well."""
    probes: int
    """Requests whose first character is waited for."""
    ping_seconds: float
    training: bool
    """Whether first characters are measured beside a training too."""
    cells: tuple[Cell, ...]
    """That read a long prompt."""
    prompt_characters: int
    unread: int
    """Streams that are opened and not read; none: no second service is started for them."""
    unread_hidden: int
    unread_seconds: float
    """That they are given at most to fill their buffers."""
    clients: int
    """That come at once."""
    client_characters: int
    """That each of them asks for."""
    kills: bool
    """Whether the generation process is killed."""


class Served:
    """One service on a data folder of its own, its generation process, its models."""

    def __init__(self, folder: Path, max_streams: int | None) -> None:
        folder.mkdir()
        self.installation = Installation(folder)
        environment = self.installation.environment
        for name in ("CHARSMITH_LEASE_SECONDS", "CHARSMITH_TORCH_THREADS"):  # made for tests
            del environment[name]
        if max_streams is not None:
            environment["CHARSMITH_MAX_STREAMS"] = str(max_streams)
            environment["CHARSMITH_READER_SECONDS"] = "86400"  # streams that nobody reads are to stay
        self.pid = self.installation.start("api").pid
        self.port = self.installation.port
        self.http = self.installation.http

    @property
    def generation_pid(self) -> int:
        (pid,) = children_of(self.pid)
        return pid

    def add_model(self, name: str, file: bytes) -> None:
        """Upload it, and have it write something, so that it is loaded."""

        def taken() -> bool | None:
            files = {"file": ("model.safetensors", file)}
            answer = self.http.post("/models", files=files, data={"name": name}, timeout=UPLOAD_SECONDS)
            assert answer.status_code in (201, 503), answer.text
            return answer.status_code == 201 or None

        wait_for(f"the model {name}", taken, UPLOAD_SECONDS)
        self.write(model=name, max_characters=100)

    def write(self, **fields: Any) -> bytes:
        """A text, as a client that is alone gets it."""
        answer = self.http.post("/generate", json=fields)
        assert answer.status_code == 200, answer.text
        return answer.content


@dataclass(frozen=True)
class Scene:
    """All of it, running."""

    size: Size
    service: Served
    """May take more streams than it does by default."""
    usual: Served
    """Takes no more."""
    crowd: Asker
    prober: Asker
    engine: Asker
    """Characters per second of the engine alone, with as many rows as there are streams."""
    plain_port: int | None
    """Of the plain loop, if it is measured."""


def model_of(size: Size, cell: Cell = "lstm") -> ModelConfig:
    """The network that is measured, as the sampling figures have it."""
    return ModelConfig(cell, size.hidden, 1, EMBEDDING)


@contextlib.contextmanager
def scene(folder: Path, size: Size) -> Iterator[Scene]:
    """Everything, until the block ends."""
    allow_many_files()
    with contextlib.ExitStack() as stack:
        service = usual = _started(stack, folder / "usual", None)
        if size.unread:
            service = _started(stack, folder / "service", ROOM + max(size.streams, size.unread))
        request = {"model": model_of(size).as_dict(), "rows": size.streams}
        engine = stack.enter_context(child.conversation("benchmarks.engine_alone", request, {}))
        plain_port = None
        if size.plain:
            plain_port = stack.enter_context(plain_service(model_of(size), ALPHABET, size.streams))
        crowd, prober = (
            stack.enter_context(child.conversation(f"benchmarks.{name}", {}, {})) for name in ("crowd", "prober")
        )
        _add_models(service, size)
        if size.unread:
            _add_unread_model(service, size)
            _add_models(usual, replace(size, cells=("lstm",)))
        if size.training:
            service.installation.start("worker")
            service.installation.wait_until_ready(workers=1)
        if plain_port is not None:
            wait_until_it_answers(plain_port)
        engine(0)  # answers when it is ready
        yield Scene(size, service, usual, crowd, prober, engine, plain_port)


def _started(stack: contextlib.ExitStack, folder: Path, max_streams: int | None) -> Served:
    served = Served(folder, max_streams)
    stack.callback(served.installation.close)
    return served


def _add_models(served: Served, size: Size) -> None:
    served.installation.wait_until_ready(workers=0)
    for cell in size.cells:
        served.add_model(cell, _file(model_of(size, cell), ALPHABET))


def _add_unread_model(served: Served, size: Size) -> None:
    served.add_model(WIDE, _file(ModelConfig("lstm", size.unread_hidden, 1, EMBEDDING), WIDE_ALPHABET))


def _file(model: ModelConfig, alphabet: str) -> bytes:
    """Of a network with weights at random, always the same: it writes no sense, as fast as any other."""
    torch.manual_seed(0)
    return encode_checkpoint(CharRNN(model, len(alphabet)), CheckpointInfo(model, Vocabulary(sorted(alphabet)), step=1))


@contextlib.contextmanager
def streaming(
    crowd: Asker, port: int, number: int, *, model: str = "lstm", accept: str = "text/plain", **manner: bool
) -> Iterator[None]:
    """So many clients with streams that have begun and do not end, until the block ends."""
    requests = [{"model": model, "max_characters": ENDLESS, "seed": seed} for seed in range(number)]
    question = {"do": "open", "requests": requests, "accept": accept, "seconds": OPEN_SECONDS, "port": port}
    begun = crowd(question | {"endless": True} | manner)
    assert begun == {"begun": number, "ended": 0}, f"{number} streams were to begin: {begun}"
    try:
        yield
    finally:
        closed = crowd({"do": "close"})
        time.sleep(LEAVE_SECONDS)
    assert not closed["ended"], f"{closed['ended']} streams broke off"


class Pace(NamedTuple):
    """What clients read, and what it took of the processor."""

    characters_per_second: float
    processors: float
    """That the clients used: 0.5 is half of one core."""


@contextlib.contextmanager
def paced(crowd: Asker) -> Iterator[list[Pace]]:
    """How fast the crowd reads while the block runs: in the list, once it has ended."""
    paces: list[Pace] = []
    before = crowd({"do": "count"})
    yield paces
    after = crowd({"do": "count"})
    gained = {key: after[key] - before[key] for key in before}
    paces.append(Pace(gained["characters"] / gained["at"], gained["processor_seconds"] / gained["at"]))


def pace(crowd: Asker, seconds: float) -> Pace:
    """How fast the crowd reads, over so many seconds."""
    with paced(crowd) as paces:
        time.sleep(seconds)
    return paces[0]
