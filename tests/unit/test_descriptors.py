"""How many clients may be connected, by the real limit of this process."""

import resource
from collections.abc import Iterator

import pytest

from app.descriptors import MOST_CONNECTIONS, OWN_FILES, most_connections, raise_limit


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def allow(files: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        pytest.skip(f"this process may not have {files} files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


@pytest.mark.parametrize(("files", "connections"), [(OWN_FILES, 1), (120, 28), (1024, 480), (16_384, MOST_CONNECTIONS)])
def test_half_of_the_files_that_are_left_may_be_connections(files: int, connections: int) -> None:
    allow(files)
    assert most_connections() == connections


def test_a_limit_is_raised_and_never_lowered() -> None:
    allow(120)
    raise_limit()
    raised, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raised > 120
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    raise_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
