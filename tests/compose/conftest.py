import os

import pytest
import yaml

from tests.compose.engine import ROOT, run, step, succeeds


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


@pytest.fixture(scope="session")
def ray_image(engine: None) -> str:
    with step("image with Ray built"):
        index = f"TORCH_INDEX={os.environ.get('TORCH_INDEX', '')}"
        arguments = ("--build-arg", index, "--build-arg", "EXTRAS=ray", "--tag", "charsmith:test-ray")
        run("docker", "build", "--network=host", *arguments, ".")
    return "charsmith:test-ray"


@pytest.fixture(scope="session")
def postgres(engine: None) -> str:
    """The image: the one that the file names, or the stand-in."""
    named = yaml.safe_load((ROOT / "docker-compose.postgres.yml").read_text())["services"]["db"]["image"]
    official = str(named).removeprefix("${POSTGRES_IMAGE:-").removesuffix("}")
    if succeeds("docker", "image", "inspect", official) or succeeds("docker", "pull", "--quiet", official):
        return official
    with step(f"a stand-in for {official} built"):
        run("docker", "build", "--network=host", "--tag", "charsmith-postgres:test", "tests/compose/postgres")
    return "charsmith-postgres:test"
