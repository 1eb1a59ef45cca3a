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

from app.generation import streams
from app.generation.streams import Generation, GenerationUnavailable
from app.settings import Settings
from tests.api.generating import (
    DEADLINE_SECONDS,
    GeneratingService,
    generating_service,
    wait_until,
)

pytestmark = pytest.mark.system

ENDLESS = "model=tiny&max_characters=1000000"
T = TypeVar("T")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data")) as made:
        yield made


def kill(service: GeneratingService) -> int:
    """kill -9 of the generation process; its id."""
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

    answer = rest_of_event_stream(events)
    name, problem = last_event(answer)
    assert (name, problem["code"], problem["status"]) == ("error", "generation_failed", 503)
    broken = rest_of(plain)
    assert broken.startswith(b"HTTP/1.1 200")
    assert not broken.endswith(b"0\r\n\r\n")  # no last chunk: nobody takes it for a whole text
    refused = whole.recv(65536)
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"generation_failed" in refused
    whole.close()

    assert service.generate(seed=1, max_characters=100).text == expected
    assert time.monotonic() - began < 10
    assert service.generation.pid != killed
    service.wait_for_rows(0)


def rest_of_event_stream(connection: socket.socket) -> bytes:
    """Until the last chunk: after an error event the answer is complete, and the connection stays open."""
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        data = connection.recv(65536)
        assert data, "the connection was closed before the last chunk"
        received += data
    connection.close()
    return received


def test_a_request_that_comes_while_the_process_is_started_again_waits_for_it(service: GeneratingService) -> None:
    kill(service)
    wait_until(lambda: not service.generation.alive)
    assert len(service.generate(max_characters=10).text) == 10


def test_a_hung_process_blocks_nothing_and_is_replaced(
    service: GeneratingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PING_SECONDS", 0.05)
    monkeypatch.setattr(streams, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(streams, "HUNG_SECONDS", 1.5)
    kill(service)  # the next one is listened to with these limits; its start may take longer than they allow
    monkeypatch.setattr(streams, "HUNG_SECONDS", 60.0)
    wait_until(lambda: service.generation.alive)
    hung = service.generation.pid
    assert hung is not None
    monkeypatch.setattr(streams, "HUNG_SECONDS", 1.5)
    service.generate(max_characters=1)  # heard: from now on the short limit holds
    os.kill(hung, signal.SIGSTOP)

    wait_until(lambda: not service.generation.alive)
    assert service.http.get("/healthz").status_code == 200
    assert service.http.get("/readyz").status_code == 503
    refused = service.generate(max_characters=1)
    assert refused.status_code in (200, 503)  # 200: it was replaced meanwhile
    assert refused.status_code == 200 or int(refused.headers["retry-after"]) >= 1

    monkeypatch.setattr(streams, "HUNG_SECONDS", 60.0)
    wait_until(lambda: service.generation.alive and service.generation.pid != hung)
    assert service.generate(max_characters=1).status_code == 200


def test_a_shutdown_ends_open_streams_with_their_last_word(tmp_path: Path) -> None:
    with generating_service(tmp_path) as service:
        events = service.connect(ENDLESS, "text/event-stream")
        service.wait_for_rows(1)
        pid = service.generation.pid
        began = time.monotonic()
    answer = rest_of(events)
    assert time.monotonic() - began < 5
    name, problem = last_event(answer)
    assert name == "error"
    assert "shutting down" in problem["detail"]
    assert pid is not None
    assert_gone(pid)


def assert_gone(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_cannot_start_makes_requests_fail_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "START_SECONDS", 0.5)
    (tmp_path / "charsmith.db").write_bytes(b"this is no database" * 100)

    async def try_it() -> None:
        generation = Generation(Settings(data_dir=tmp_path), f"sqlite:///{tmp_path}/charsmith.db")
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

    run(start_and_stop())
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def run(work: Coroutine[Any, Any, T]) -> T:
    async def in_time() -> T:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await work

    return asyncio.run(in_time())
