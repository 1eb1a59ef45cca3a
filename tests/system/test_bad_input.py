"""Every bad input that we know, over real sockets to a real service; `python -m tests.bad_input` prints the table."""

from collections.abc import Iterator

import httpx
import pytest

from tests.bad_input import OWN_LIMIT_BYTES, own_service
from tests.bad_inputs.run import Result, Run, scene
from tests.databases import once

pytestmark = [once, pytest.mark.system]


@pytest.fixture(scope="module")
def results() -> Iterator[list[Result]]:
    with own_service() as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as http, scene(http):
        yield list(Run(http, OWN_LIMIT_BYTES).results())


def test_each_gets_its_answer_as_a_documented_problem_and_nothing_is_stored(results: list[Result]) -> None:
    assert {result.case.what: result.wrong for result in results if result.wrong} == {}


def test_none_makes_the_service_fail(results: list[Result]) -> None:
    assert [result.case.what for result in results if result.answer.status >= 500] == []


def test_each_is_told_by_its_name(results: list[Result]) -> None:
    names = [result.case.what for result in results]
    assert sorted(names) == sorted(set(names))
