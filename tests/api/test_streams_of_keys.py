"""How many streams a key may have open: its own limit beside that of all."""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.store.api_keys import Scope, create_key
from tests.api.generating import GeneratingService, generating_service, wait_until
from tests.api.service import assert_problem

JSON = "application/json"
GENERATE = frozenset({Scope.GENERATE})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("data"), max_streams=5) as made:
        yield made


@pytest.fixture(scope="module")
def keys(service: GeneratingService) -> dict[str, dict[str, str]]:
    """The headers of a key that may have two streams, and of one without a limit of its own."""
    limits: dict[str, Any] = {"few": 2, "many": None}
    return {
        name: {"Authorization": f"Bearer {create_key(service.database, name, GENERATE, max_streams=limit)[1]}"}
        for name, limit in limits.items()
    }


@contextlib.contextmanager
def open_streams(service: GeneratingService, headers: dict[str, str], number: int) -> Iterator[None]:
    """So many more endless streams, until the block ends."""
    before = service.generation.open_streams
    endless = {"model": "tiny", "max_characters": "1000000"}
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(service.http.stream("GET", "/generate", params=endless, headers=headers))
        assert service.generation.open_streams == before + number
        yield
    wait_until(lambda: service.generation.open_streams == before)


def ask(service: GeneratingService, headers: dict[str, str], **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "max_characters": 5} | fields
    return service.http.post("/generate", json=body, headers=headers | {"Accept": JSON})


def test_a_key_has_as_many_streams_as_it_may_while_others_have_theirs(
    service: GeneratingService, keys: dict[str, dict[str, str]]
) -> None:
    few, many = keys["few"], keys["many"]
    with open_streams(service, few, 2):
        refused = ask(service, few)
        problem = assert_problem(refused, 429)
        assert problem["code"] == "too_many_streams"
        assert problem["detail"].startswith("of at most 2 streams of this API key 2 are open")
        assert refused.headers["retry-after"]
        scored = service.http.post("/score", json={"model": "tiny", "text": "abc"}, headers=few)
        assert assert_problem(scored, 429)["code"] == "too_many_streams"
        unread = service.http.post("/generate", content=b"no JSON", headers=few)
        assert_problem(unread, 429)  # a crowd of one key's is refused as cheaply as any other
        assert ask(service, many).is_success
        with open_streams(service, many, 3):
            assert assert_problem(ask(service, many), 429)["detail"].startswith("of at most 5 streams 5 are open")
    assert ask(service, few).is_success


def test_a_large_body_of_a_key_that_has_no_place_left_is_refused_by_its_route(
    service: GeneratingService, keys: dict[str, dict[str, str]]
) -> None:
    with open_streams(service, keys["few"], 2):
        large = service.http.post("/score", json={"model": "tiny", "text": "ab" * 40_000}, headers=keys["few"])
    assert "of this API key" in assert_problem(large, 429)["detail"]


def test_several_texts_count_as_several_and_more_than_may_ever_be_open_are_a_mistake(
    service: GeneratingService, keys: dict[str, dict[str, str]]
) -> None:
    few = keys["few"]
    assert len(ask(service, few, n=2).json()["samples"]) == 2
    assert "at most 2, as many" in assert_problem(ask(service, few, n=3), 422, "n")["detail"]
    with open_streams(service, few, 1):
        assert "2 places" in assert_problem(ask(service, few, n=2), 429)["detail"]
    assert ask(service, keys["many"], n=3).is_success
