"""Requests that are made to cost a lot: a hundred thousand headers or parts are refused for little work."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.bad_inputs.wire import FORM, Answer, exchange, form, part, request
from tests.databases import once
from tests.process_figures import forget_peak, memory_mib, processor_seconds
from tests.system.harness import Installation

pytestmark = [
    once,
    pytest.mark.system,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only /proc tells what a process used"),
]

NUMBER = 100_000
MOST_SECONDS = 1.0
MOST_MIB = 32


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    made = Installation(tmp_path_factory.mktemp("abused"))
    pid = made.start_api().pid
    made.upload()
    yield made.url, pid
    made.close()


def headers() -> Iterable[bytes]:
    return request("GET", "/corpora", headers=[(f"X-{n}", "y") for n in range(NUMBER)])


def parts() -> Iterable[bytes]:
    return request("POST", "/corpora", form(*[part(f"f{n}", b"") for n in range(NUMBER)]), FORM)


def files() -> Iterable[bytes]:
    return request("POST", "/corpora", form(*[part("file", b"x", f"{n}") for n in range(NUMBER)]), FORM)


def headers_of_a_part() -> Iterable[bytes]:
    many = b"".join(b"X-%d: y\r\n" % n for n in range(NUMBER))
    return request("POST", "/corpora", form(part("file", b"text", "a", many)), FORM)


def boundaries() -> Iterable[bytes]:
    """What nearly ends a part, over and over."""
    return request("POST", "/corpora", form(part("name", b"\r\n--end-of-a-par" * NUMBER)), FORM)


def fields_of_json() -> Iterable[bytes]:
    body = "{" + ",".join(f'"f{n}": 0' for n in range(NUMBER // 2)) + "}"
    return request("POST", "/jobs", body.encode(), "application/json")


def queries() -> Iterable[bytes]:
    return request("GET", "/corpora?" + "&".join(f"f{n}=" for n in range(8000)))


ABUSES = [headers, parts, files, headers_of_a_part, boundaries, fields_of_json, queries]


@pytest.mark.parametrize("send", ABUSES, ids=lambda send: send.__name__)
def test_what_has_a_hundred_thousand_of_something_is_refused_for_little(
    service: tuple[str, int], send: Callable[[], Iterable[bytes]]
) -> None:
    url, pid = service
    whole = list(send())
    forget_peak(pid)
    memory, began = memory_mib(pid), processor_seconds(pid)
    answer: Answer = exchange(url, whole)
    spent, grown = processor_seconds(pid) - began, memory_mib(pid, "VmHWM") - memory
    print(f"{send.__name__}: {answer.status}, {spent * 1000:.0f} ms of CPU, {grown:.1f} MiB")
    assert 400 <= answer.status < 500, answer.body
    assert answer.kind == "application/problem+json"
    assert len(answer.body) < 20_000
    assert spent < MOST_SECONDS
    assert grown < MOST_MIB
    assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
