"""Clients that leave, read slowly or come in crowds: their rows are free within a step, and nobody pays for them."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from app import protocol
from app.generation.stream import GRANTED_CHARACTERS
from app.generation.streams import Samples
from app.schemas import GenerateRequest
from app.store.trained_models import delete_model, find_checkpoint
from tests.api.generating import (
    DEADLINE_SECONDS,
    GeneratingService,
    generating_service,
    opened,
    reset,
    rest_of,
    store_model,
    tiny_checkpoint,
    wait_until,
)
from tests.api.service import assert_problem
from tests.databases import SERVER

KINDS = ["text/plain", "text/event-stream", "application/json"]
ENDLESS = "model=tiny&max_characters=1000000"
T = TypeVar("T")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data"), max_streams=4) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left_behind(service: GeneratingService) -> Iterator[None]:
    yield
    service.wait_for_rows(0)


def within(service: GeneratingService, work: Coroutine[Any, Any, T]) -> T:
    """Do it in the service's own event loop."""
    return asyncio.run_coroutine_threadsafe(work, service.loop).result(DEADLINE_SECONDS)


async def open_stream(service: GeneratingService, **fields: Any) -> Samples:
    _, checkpoint = find_checkpoint(service.database, fields.get("model", "tiny"))
    asked = GenerateRequest.model_validate({"model": "tiny", "max_characters": 1_000_000} | fields)
    return await opened(service.generation, asked, checkpoint.blob_id)


def open_sockets(service: GeneratingService) -> int:
    """Of this process, in which the service runs; but for those that it keeps to a server of its database."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    kept = service.database._engine.pool.checkedin() if SERVER else 0  # type: ignore[attr-defined]
    return sum(link.startswith("socket:") for link in links) - kept


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_in_mid_stream_frees_its_row(service: GeneratingService, kind: str, leave: str) -> None:
    connection = service.connect(ENDLESS, kind)
    service.wait_for_rows(1)
    if kind != "application/json":
        assert connection.recv(100).startswith(b"HTTP/1.1 200")  # it streams: the text is far from complete
    if leave == "reset":
        reset(connection)
    else:
        connection.close()
    service.wait_for_rows(0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_before_it_is_admitted_frees_its_row(service: GeneratingService, kind: str) -> None:
    pid = service.generation.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        connection = service.connect(ENDLESS, kind)
        wait_until(lambda: service.generation.open_streams == 1)
        connection.close()
        wait_until(lambda: service.generation.open_streams == 0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert service.rows() == 0


def test_fifty_connections_that_are_aborted_leave_nothing_behind(service: GeneratingService) -> None:
    async def tasks() -> int:
        return len(asyncio.all_tasks())

    service.generate(max_characters=1)
    tasks_before, sockets_before = within(service, tasks()), open_sockets(service)
    for cycle in range(50):
        connection = service.connect(ENDLESS, KINDS[cycle % 3])
        if cycle % 2:
            wait_until(lambda: service.generation.open_streams >= 1)
        if cycle % 4 == 1 and cycle % 3 != 2:
            connection.recv(100)
        reset(connection)
        wait_until(lambda: service.generation.open_streams <= 2)
    service.wait_for_rows(0)
    wait_until(lambda: within(service, tasks()) <= tasks_before)
    wait_until(lambda: open_sockets(service) <= sockets_before)


def test_a_stream_too_many_is_told_to_wait_and_a_place_is_free_again_after_one_left(
    service: GeneratingService,
) -> None:
    connections = [service.connect(ENDLESS) for _ in range(4)]
    service.wait_for_rows(4)
    refused = service.generate(max_characters=5)
    assert assert_problem(refused, 429)["code"] == "too_many_streams"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-content-type-options"] == "nosniff"
    connections.pop().close()
    service.wait_for_rows(3)
    assert len(service.generate(max_characters=5).text) == 5
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(("method", "path"), [("GET", "/generate"), ("POST", "/generate"), ("POST", "/score")])
def test_a_crowd_is_refused_before_its_requests_are_validated(
    service: GeneratingService, method: str, path: str
) -> None:
    body = {} if method == "GET" else {"content": b"no JSON"}
    assert_problem(service.http.request(method, path, **body), 422)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(service.connect(ENDLESS, receive_bytes=4096))
        service.wait_for_rows(4)
        refused = service.http.request(method, path, **body)
        assert assert_problem(refused, 429)["code"] == "too_many_streams"
        assert refused.headers.get("connection") != "close"
        assert service.http.head(path).status_code == 405


def test_a_large_body_is_read_whole_before_it_is_refused(service: GeneratingService) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(service.connect(ENDLESS, receive_bytes=4096))
        service.wait_for_rows(4)
        refused = service.http.post("/score", json={"model": "tiny", "text": "ab" * 4_000_000})
        assert_problem(refused, 429)
        assert refused.headers.get("connection") != "close"


def test_several_texts_are_refused_where_there_is_room_for_one(service: GeneratingService) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(service.connect(ENDLESS, receive_bytes=4096))
        service.wait_for_rows(3)
        refused = service.generate("application/json", n=2, model="nobody", max_characters=5)
        assert "2 places" in assert_problem(refused, 429)["detail"]


def test_a_row_writes_only_so_far_ahead_of_its_reader_and_goes_on_when_it_reads(service: GeneratingService) -> None:
    async def written() -> int:
        return (await service.generation.counts())["characters"]

    async def read_slowly() -> tuple[int, int]:
        before = await written()
        stream = await open_stream(service)
        other = await open_stream(service, max_characters=3 * GRANTED_CHARACTERS)
        others = "".join([text async for _, text in other])  # meanwhile the first one stands still
        ahead = await written() - before - len(others)
        read = sum([len((await anext(stream))[1]) for _ in range(20)])
        stream.evict()
        other.evict()
        return ahead, read

    ahead, read = within(service, read_slowly())
    assert ahead == GRANTED_CHARACTERS
    assert read > GRANTED_CHARACTERS


def give_up_after(service: GeneratingService, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(service.generation, "_reader_seconds", seconds)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_client_that_takes_nothing_is_given_up_and_its_connection_with_it(
    service: GeneratingService, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    give_up_after(service, 2.0, monkeypatch)
    sockets_before = open_sockets(service)
    with service.connect(ENDLESS, kind, receive_bytes=1, segment_bytes=300) as connection:
        service.wait_for_rows(1)
        service.wait_for_rows(0)
        wait_until(lambda: open_sockets(service) <= sockets_before + 1)  # the client's own end
        with pytest.raises(ConnectionResetError):  # nobody takes it for a whole text
            rest_of(connection)


def test_a_client_that_reads_slowly_is_not_given_up(
    service: GeneratingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up_after(service, 3.0, monkeypatch)
    with service.connect(ENDLESS, receive_bytes=1, segment_bytes=300) as connection:
        service.wait_for_rows(1)
        ends_at = time.monotonic() + 9.0  # three times as long as it may stand still
        while time.monotonic() < ends_at:
            assert connection.recv(300)
            time.sleep(0.05)
        assert service.rows() == 1


def test_a_stream_goes_on_with_its_weights_when_its_model_is_deleted(service: GeneratingService) -> None:
    store_model(service.database, "doomed", tiny_checkpoint(hidden_size=6))
    expected = service.generate(model="doomed", seed=1, max_characters=9000).text

    async def read() -> str:
        stream = await open_stream(service, model="doomed", max_characters=9000)
        _, first = await anext(stream)
        await asyncio.to_thread(delete_model, service.database, "doomed")
        rest = "".join([text async for _, text in stream])
        stream.evict()
        return first + rest

    assert within(service, read()) == expected
    assert_problem(service.generate(model="doomed"), 404)


def test_the_same_seed_writes_the_same_text_alone_and_in_a_crowd(service: GeneratingService) -> None:
    alone = service.generate(prompt="a", seed=4, max_characters=2000).text
    crowd = [service.connect(f"{ENDLESS}&prompt=x&seed={n}") for n in range(3)]
    service.wait_for_rows(3)
    assert service.generate(prompt="a", seed=4, max_characters=2000).text == alone
    for connection in crowd:
        connection.close()


def test_a_long_prompt_that_is_read_keeps_nobody_waiting_and_its_client_may_leave(service: GeneratingService) -> None:
    body = {"model": "tiny", "prompt": "a" * 100_000, "max_characters": 1}
    reader = threading.Thread(target=lambda: service.http.post("/generate", json=body))
    reader.start()
    wait_until(lambda: service.generation.open_streams == 1)
    texts = [service.generate(seed=n, max_characters=20).text for n in range(3)]
    assert {len(text) for text in texts} == {20}
    reader.join(DEADLINE_SECONDS)


def test_a_place_is_held_before_anything_is_looked_up_and_given_back_when_that_fails(
    service: GeneratingService,
) -> None:
    async def hold_all() -> list[Samples]:
        return [service.generation.hold_places(number) for number in (1, 3)]

    held = within(service, hold_all())
    assert_problem(service.generate(model="nobody"), 429)  # a crowd costs no query
    for stream in held:
        service.loop.call_soon_threadsafe(stream.evict)
    wait_until(lambda: service.generation.open_streams == 0)
    for _ in range(5):
        assert_problem(service.generate(model="nobody"), 404)
