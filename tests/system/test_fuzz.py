"""Requests that Schemathesis makes up, a few hundred of them; `make fuzz` makes up more."""

import re
from pathlib import Path

import pytest

from tests.databases import once
from tests.fuzz.__main__ import fuzz
from tests.system.harness import Installation

pytestmark = [once, pytest.mark.system]


def test_no_request_that_can_be_made_up_gets_an_undocumented_answer(
    installation: Installation, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    installation.start_api()

    status = fuzz(installation, tmp_path, examples=5, seed=1)

    told = capfd.readouterr().out
    assert status == 0, told
    generated = re.search(r"(\d+) generated", told)
    assert generated, told
    assert int(generated[1]) > 500
