"""Thousands of clients that ask for a text and are gone: nothing of them stays, in the service or its child.

Real processes; 300 cycles in `make test`, 10,000 in the full form.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.generating import reset, tiny_checkpoint, wait_until
from tests.databases import once
from tests.forms import by_form
from tests.process_figures import memory_mib, open_files, processor_seconds, sockets, threads
from tests.system.harness import Installation, children_of

pytestmark = [
    once,
    pytest.mark.system,
    pytest.mark.forms,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only /proc tells what a process holds"),
]

CYCLES = by_form(300, 1000, 10_000)
WARM_UP = 300
DRIFT_MIB = 5
STREAMS = 8
POOLED_CONNECTIONS, POOLED_THREADS = 8, 40
"""To the database, each with three files; and those that run what blocks."""
KINDS = ("text/plain", "text/event-stream", "application/json")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.environment["CHARSMITH_MAX_STREAMS"] = str(STREAMS)
    yield made
    made.close()


def ask(port: int, kind: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 30)
    target = "/generate?model=tiny&max_characters=1000000"
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {kind}\r\n\r\n".encode())
    return connection


def abort(port: int, cycle: int) -> None:
    """Ask and leave: at once, after the head of the answer, or in the midst of the text."""
    connection, kind = ask(port, KINDS[cycle % 3]), KINDS[cycle % 3]
    if cycle % 2 and kind != "application/json":
        connection.recv(100)
    if cycle % 4 == 3 and kind != "application/json":
        connection.recv(65536)
    reset(connection)


def held(pid: int) -> tuple[int, int, int]:
    return sockets(pid), open_files(pid), threads(pid)


def most_after(before: tuple[int, int, int]) -> tuple[int, int, int]:
    """Not a connection more; what is pooled may have filled up since."""
    return before[0], before[1] + 3 * POOLED_CONNECTIONS, before[2] + POOLED_THREADS


def at_rest(pids: list[int]) -> bool:
    """Whether none of them works: a row that is left would be written for."""
    before = sum(map(processor_seconds, pids))
    time.sleep(0.5)
    return sum(map(processor_seconds, pids)) - before < 0.1


def test_clients_that_come_and_break_off_leave_nothing_behind(installation: Installation) -> None:
    service = installation.start_api()
    uploaded = installation.http.post("/models", files={"file": ("m", tiny_checkpoint())}, data={"name": "tiny"})
    assert uploaded.status_code == 201, uploaded.text
    installation.http.get("/generate?model=tiny&max_characters=10").raise_for_status()
    (generation,) = children_of(service.pid)
    pids = [service.pid, generation]

    for cycle in range(WARM_UP):
        abort(installation.port, cycle)
    wait_until(lambda: at_rest(pids))
    memory, others = [memory_mib(pid) for pid in pids], [held(pid) for pid in pids]
    for cycle in range(CYCLES):
        abort(installation.port, cycle)
    wait_until(lambda: at_rest(pids))

    drifts = [memory_mib(pid) - before for pid, before in zip(pids, memory, strict=True)]
    print(f"{CYCLES} cycles: service {drifts[0]:+.1f} MiB, generation process {drifts[1]:+.1f} MiB")
    assert max(drifts) <= DRIFT_MIB
    for pid, before in zip(pids, others, strict=True):
        most = most_after(before)
        wait_until(lambda pid=pid, most=most: all(map(int.__le__, held(pid), most)))
    assert children_of(service.pid) == [generation], "it is still the same process"
    _all_places_are_free(installation)


def _all_places_are_free(installation: Installation) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(ask(installation.port, "text/plain")) for _ in range(STREAMS)]
        for connection in opened:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
