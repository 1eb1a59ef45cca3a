"""A large text passes through the service in pieces: measured on a real process."""

from pathlib import Path

import pytest

from tests.forms import by_form
from tests.process_figures import forget_peak, memory_mib
from tests.system.harness import Installation

MIB = 1024 * 1024
UPLOAD_MIB = by_form(64, 64, 1024)
GROWTH_MIB = 48


@pytest.mark.system
@pytest.mark.forms
def test_an_upload_and_a_download_grow_the_services_memory_by_little(tmp_path: Path) -> None:
    text = tmp_path / "large.txt"
    line = "so long lives this, and this gives life to thee: é\n".encode()
    with text.open("wb") as file:
        for number in range(UPLOAD_MIB):
            file.write((b"%d " % number + line * (MIB // len(line)))[:MIB].ljust(MIB, b"."))
    installation = Installation(tmp_path)
    installation.environment["CHARSMITH_MAX_CORPUS_BYTES"] = str(2 * UPLOAD_MIB * MIB)
    try:
        service = installation.start_api()
        installation.upload()
        forget_peak(service.pid)
        before = memory_mib(service.pid)
        with text.open("rb") as file:
            answer = installation.http.post("/corpora", files={"file": ("large.txt", file)}, timeout=600)
        assert answer.status_code == 201, answer.text
        with installation.http.stream("GET", f"/corpora/{answer.json()['id']}/text") as download:
            assert sum(len(piece) for piece in download.iter_bytes()) == text.stat().st_size
        grown = memory_mib(service.pid, "VmHWM") - before
        print(f"{UPLOAD_MIB} MiB up and down: {grown:+.1f} MiB")
        assert grown < GROWTH_MIB
    finally:
        installation.close()
