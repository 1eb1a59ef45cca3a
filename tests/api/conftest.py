"""Fixtures of the API tests: a running service on an empty store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.store.opening import open_database
from tests.api.service import ScriptedGeneration, Service, running
from tests.databases import SERVER, fresh_database, give_back

LIMITS: dict[str, Any] = {"max_corpus_bytes": 100_000, "max_queued_jobs": 3}


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an empty database, or whose settings find one on the server."""
    url = fresh_database(tmp_path)
    if SERVER:
        monkeypatch.setenv("CHARSMITH_DATABASE_URL", url)
    yield tmp_path
    give_back(url)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave it as it is: starting and stopping takes longer than most of them."""
    folder = tmp_path_factory.mktemp("shared")
    with running(Settings(data_dir=folder, database_url=fresh_database(folder), **LIMITS)) as made:
        yield made


@pytest.fixture
def service(shared: Service, data_dir: Path) -> Iterator[Service]:
    """The shared service, on an empty store of this test's own."""
    database, generation = open_database(Settings(data_dir=data_dir).resolved_database_url), ScriptedGeneration()
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
