"""What all tests need."""

import os
import sys
from collections.abc import Iterator

import pytest

# Before anything imports Ray, as `worker.ray_driver` does: a call without a cluster is an error and starts none.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Training flushes them to zero, for the whole process; the next test begins as every process does.

    A test of a service would else send 0 for 5e-324, and be surprised by its answer. It does not load torch itself.
    """
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)
