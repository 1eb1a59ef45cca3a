"""Fixtures of the system tests: an empty installation for one test, a running one for a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Installation, serving


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """With the corpus `bottles`, shared by a module's tests."""
    with serving(tmp_path_factory.mktemp("running")) as made:
        made.upload()
        yield made
