"""Eight workers, five hundred jobs, one moment to begin: each job is claimed once."""

import tempfile
from pathlib import Path

import pytest

from tests.faults.claiming import race
from tests.faults.killing import SIZES
from tests.faults.lives import quick_folder

pytestmark = pytest.mark.system


@pytest.mark.parametrize("workers", SIZES["short"].workers)
def test_workers_that_begin_at_once_claim_each_of_five_hundred_jobs_exactly_once(workers: int) -> None:
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder:
        assert race(Path(folder), workers, SIZES["short"].claimed) == 500
