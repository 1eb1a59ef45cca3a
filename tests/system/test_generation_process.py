"""The generation process dies, hangs or ends: clients are told, nothing is left behind, the next stream is served."""

import asyncio
import json
import os
import re
import signal
import socket
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app.generation.streams import Generation, GenerationUnavailable, Patience, Samples, StreamFailed
from app.schemas import GenerateRequest
from app.settings import Settings
from app.store.blobs import write_blob
from app.store.opening import open_database
from tests.api.generating import (
    DEADLINE_SECONDS,
    GeneratingService,
    generating_service,
    opened,
    tiny_checkpoint,
    wait_until,
)
from tests.system.harness import children_of

pytestmark = pytest.mark.system

ENDLESS = "model=tiny&max_characters=1000000"
T = TypeVar("T")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data")) as made:
        yield made


def kill(service: GeneratingService) -> int:
    """kill -9 of the generation process; its id."""
    wait_until(lambda: service.generation.alive)
    pid = service.generation.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the service closes the connection."""
    received = b""
    while data := connection.recv(65536):
        received += data
    connection.close()
    return received


def last_event(answer: bytes) -> tuple[str, dict[str, Any]]:
    """Name and data of the last server-sent event in a chunked answer."""
    found = re.findall(rb"event: (\w+)\ndata: (.*?)\n\n", answer)
    return found[-1][0].decode(), json.loads(found[-1][1])


def test_kill_9_ends_open_streams_with_an_error_and_the_next_one_is_served_within_seconds(
    service: GeneratingService,
) -> None:
    expected = service.generate(seed=1, max_characters=100).text
    events = service.connect(ENDLESS, "text/event-stream")
    plain = service.connect(ENDLESS, "text/plain")
    whole = service.connect(ENDLESS, "application/json")
    service.wait_for_rows(3)

    killed = kill(service)
    began = time.monotonic()

    name, problem = last_event(rest_of(events))
    assert (name, problem["code"], problem["status"]) == ("error", "generation_failed", 503)
    broken = rest_of(plain)
    assert broken.startswith(b"HTTP/1.1 200")
    assert not broken.endswith(b"0\r\n\r\n")  # no last chunk: nobody takes it for a whole text
    refused = rest_of(whole)
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"generation_failed" in refused

    assert service.generate(seed=1, max_characters=100).text == expected
    assert time.monotonic() - began < 10
    assert service.generation.pid != killed
    service.wait_for_rows(0)


def test_a_request_that_comes_while_the_process_is_started_again_waits_for_it(service: GeneratingService) -> None:
    kill(service)
    wait_until(lambda: not service.generation.alive)
    assert len(service.generate(max_characters=10).text) == 10


def test_a_hung_process_is_told_from_a_busy_one_and_replaced(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/charsmith.db")
    blob = write_blob(database, [tiny_checkpoint(hidden_size=512)])  # a smaller one writes a million in a second
    database.close()
    asked = GenerateRequest(model="tiny", max_characters=1_000_000)

    async def hang_it() -> None:
        patience = Patience(ping=0.05, silent=1.2, hung=1.5)
        generation = Generation(Settings(data_dir=tmp_path), f"sqlite:///{tmp_path}/charsmith.db", patience)
        await generation.start()
        stream = await opened(generation, asked, blob.id)
        busy_until = time.monotonic() + 2.0
        while time.monotonic() < busy_until:
            await anext(stream)
            assert generation.alive
        hung = generation.pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        with pytest.raises(StreamFailed):
            await read_to_the_end(stream)
        assert not generation.alive
        stream.evict()
        stream = await opened(generation, asked, blob.id)  # waits for the new process
        assert generation.pid != hung
        await generation.stop()
        assert_gone(hung)
        with pytest.raises(StreamFailed):
            await read_to_the_end(stream)
        stream.evict()

    run(hang_it())


async def read_to_the_end(stream: Samples) -> None:
    async for _ in stream:
        pass


def test_while_a_process_says_nothing_requests_are_refused_at_once(tmp_path: Path) -> None:
    async def hang_it() -> None:
        patience = Patience(ping=0.05, silent=0.3)
        generation = Generation(Settings(data_dir=tmp_path), f"sqlite:///{tmp_path}/charsmith.db", patience)
        await generation.start()
        await generation.counts()
        assert generation.pid is not None
        os.kill(generation.pid, signal.SIGSTOP)
        while generation.alive:
            await asyncio.sleep(0)
        began = time.monotonic()
        with pytest.raises(GenerationUnavailable):
            await generation.counts()
        assert time.monotonic() - began < 0.2
        await generation.stop()

    run(hang_it())


def test_a_shutdown_ends_open_streams_with_their_last_word(tmp_path: Path) -> None:
    with generating_service(tmp_path) as service:
        events = service.connect(ENDLESS, "text/event-stream")
        service.wait_for_rows(1)
        pid = service.generation.pid
        began = time.monotonic()
    assert time.monotonic() - began < 5
    name, problem = last_event(rest_of(events))
    assert name == "error"
    assert "shutting down" in problem["detail"]
    assert pid is not None
    assert_gone(pid)


def assert_gone(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_cannot_start_makes_requests_fail_and_is_tried_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "charsmith.db").write_bytes(b"this is no database" * 100)

    async def try_it() -> None:
        patience = Patience(request=0.5)
        generation = Generation(Settings(data_dir=tmp_path), f"sqlite:///{tmp_path}/charsmith.db", patience)
        await generation.start()
        with pytest.raises(GenerationUnavailable):
            await generation.inspect("blob")
        assert not generation.alive
        await generation.stop()

    run(try_it())


def test_stopping_in_the_midst_of_starting_leaves_no_process(tmp_path: Path) -> None:
    async def start_and_stop() -> None:
        generation = Generation(Settings(data_dir=tmp_path), f"sqlite:///{tmp_path}/charsmith.db")
        for _ in range(3):
            await generation.start()
            await asyncio.sleep(0)
            await generation.stop()

    before = set(children_of(os.getpid()))
    run(start_and_stop())
    assert set(children_of(os.getpid())) == before


def run(work: Coroutine[Any, Any, T]) -> T:
    async def in_time() -> T:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await work

    return asyncio.run(in_time())
