"""A large text passes through the service in pieces: measured on a real process."""

from pathlib import Path

import pytest

from tests.system.harness import Installation

MIB = 1024 * 1024
UPLOAD_MIB = 64
GROWTH_MIB = 32


def memory_mib(pid: int, kind: str) -> float:
    """`VmRSS`, or `VmHWM`: its peak since the last `clear_refs`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))


@pytest.mark.system
def test_an_upload_and_a_download_grow_the_services_memory_by_little(tmp_path: Path) -> None:
    text = tmp_path / "large.txt"
    line = "so long lives this, and this gives life to thee: é\n".encode()
    with text.open("wb") as file:
        for number in range(UPLOAD_MIB):
            file.write((b"%d " % number + line * (MIB // len(line)))[:MIB].ljust(MIB, b"."))
    installation = Installation(tmp_path)
    try:
        service = installation.start_api()
        installation.upload()
        (Path("/proc") / str(service.pid) / "clear_refs").write_text("5")
        before = memory_mib(service.pid, "VmRSS")
        with text.open("rb") as file:
            answer = installation.http.post("/corpora", files={"file": ("large.txt", file)})
        assert answer.status_code == 201, answer.text
        with installation.http.stream("GET", f"/corpora/{answer.json()['id']}/text") as download:
            assert sum(len(piece) for piece in download.iter_bytes()) == text.stat().st_size
        assert memory_mib(service.pid, "VmHWM") - before < GROWTH_MIB
    finally:
        installation.close()
