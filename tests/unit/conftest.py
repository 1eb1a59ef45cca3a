"""What all unit tests need."""

from collections.abc import Iterator

import pytest
import torch

# Networks of a test are too small for two threads, and on a busy machine the one waits, spinning, for the other: the
# tests of models and trainer took 25 s with one thread, 338 s with two beside another test run.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Training flushes them to zero, for the whole process; the next test begins as every process does."""
    yield
    torch.set_flush_denormal(False)
