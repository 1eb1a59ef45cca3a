"""The health check of the image, without the image: its command against a running service."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.service import Service
from tests.system.harness import free_port

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def check(**environment: str) -> int:
    """The exit status of the check in this environment."""
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    python, *arguments = json.loads(found[1])
    assert python == "python"
    return subprocess.run([sys.executable, *arguments], env=os.environ | environment, capture_output=True).returncode


@pytest.fixture
def port(service: Service) -> str:
    return str(service.address[1])


def test_a_service_that_is_ready_is_healthy(port: str) -> None:
    assert check(CHARSMITH_PORT=port) == 0


def test_a_proxy_of_the_environment_is_not_asked(port: str) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    assert check(CHARSMITH_PORT=port, http_proxy=proxy, HTTP_PROXY=proxy, all_proxy=proxy, no_proxy="") == 0


def test_a_service_that_is_not_ready_or_not_there_is_unhealthy(service: Service, port: str) -> None:
    service.generation.alive = False
    assert check(CHARSMITH_PORT=port) != 0
    assert check(CHARSMITH_PORT=str(free_port())) != 0
