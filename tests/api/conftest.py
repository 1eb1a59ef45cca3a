"""Fixtures of the API tests: a running service on an empty store."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.store.opening import open_database
from tests.api.service import ScriptedGeneration, Service, running

LIMITS: dict[str, Any] = {"max_corpus_bytes": 100_000, "max_queued_jobs": 3}


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a database without a row: copied, so that each test need not run the migrations."""
    path = tmp_path_factory.mktemp("empty") / "charsmith.db"
    open_database(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def data_dir(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "charsmith.db")
    return tmp_path


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Service]:
    """One service for all tests that leave it as it is: starting and stopping takes longer than most of them."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy(empty_database, folder / "charsmith.db")
    with running(Settings(data_dir=folder, **LIMITS)) as made:
        yield made


@pytest.fixture
def service(shared: Service, data_dir: Path) -> Iterator[Service]:
    """The shared service, on an empty store of this test's own."""
    database, generation = open_database(f"sqlite:///{data_dir}/charsmith.db"), ScriptedGeneration()
    shared.app.state.database, shared.app.state.generation = database, generation
    yield Service(shared.http, database, generation, shared.settings, shared.server)
    database.close()


@pytest.fixture
def own_service(data_dir: Path) -> Iterator[Service]:
    """A service of this test's own, to be stopped or changed."""
    with running(Settings(data_dir=data_dir, **LIMITS)) as made:
        yield made


@pytest.fixture
def http(service: Service) -> httpx.Client:
    return service.http
