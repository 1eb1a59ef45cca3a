import os

import pytest

from tests.compose.engine import run, step, succeeds


@pytest.fixture(scope="session")
def engine() -> None:
    with step("engine up"):
        script = os.environ.get("CHARSMITH_TEST_ENGINE", "")
        if not succeeds("docker", "info") and script:
            run(script, "up", BASE_WHEELS="1", ENGINE_NAT="0")
        assert succeeds("docker", "info"), "no Docker engine answers"


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """The image of the service and the worker, built."""
    with step("image built"):
        index = f"TORCH_INDEX={os.environ.get('TORCH_INDEX', '')}"
        run("docker", "build", "--network=host", "--build-arg", index, "--tag", "charsmith:test", ".")
    return "charsmith:test"
