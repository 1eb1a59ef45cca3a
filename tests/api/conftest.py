"""Fixtures of the API tests: a running service on an empty store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from app.store.database import open_database
from tests.api.service import Service, running


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


@pytest.fixture
def service(data_dir: Path) -> Iterator[Service]:
    with running(Settings(data_dir=data_dir, max_corpus_bytes=100_000, max_queued_jobs=3)) as made:
        yield made


@pytest.fixture
def http(service: Service) -> httpx.Client:
    return service.http
