"""A large upload: how fast, and how much memory it takes in the service."""

import os
import random
import time
from pathlib import Path

from benchmarks.figures import MIB, Figure, peak_mib, reset_peak, resident_mib
from tests.system.harness import Installation

WORDS = tuple("the of and to in a is that it was for on are as with his they at be this from".split())  # noqa: SIM905


def words() -> str:
    """20,000 lines of words at random, always the same."""
    draw = random.Random(0)
    return "".join(" ".join(draw.choices(WORDS, k=12)) + "\n" for _ in range(20_000))


def write_text(path: Path, megabytes: int) -> None:
    """A text of exactly so many MiB, words at random from a fixed seed."""
    draw = random.Random(1)
    block = words().encode()
    with path.open("wb") as file:
        left = megabytes * MIB
        while left > 0:
            piece = draw.randrange(1000).to_bytes(2, "big").hex().encode() + block
            left -= file.write(piece[:left])


def disk_rate(folder: Path, megabytes: int) -> float:
    """MB/s of writing so many MiB to a file, with one sync each MiB, as the store does."""
    piece = os.urandom(MIB)
    begin = time.perf_counter()
    with (folder / "plain").open("wb", buffering=0) as file:
        for _ in range(megabytes):
            file.write(piece)
            os.fsync(file.fileno())
    (folder / "plain").unlink()
    return megabytes * MIB / 1e6 / (time.perf_counter() - begin)


def measure_upload(folder: Path, megabytes: int) -> list[Figure]:
    """Throughput and growth of the service's resident memory, at its peak, over one upload."""
    text = folder / "text.txt"
    write_text(text, megabytes)
    disk = disk_rate(folder, megabytes)
    installation = Installation(folder)
    try:
        service = installation.start_api()
        installation.upload("warm up, so that what is imported late is there\n" * 20, "first")
        reset_peak(service.pid)
        before = resident_mib(service.pid)
        begin = time.perf_counter()
        with text.open("rb") as file:
            answer = installation.http.post("/corpora", files={"file": ("text.txt", file)}, timeout=600)
        seconds = time.perf_counter() - begin
        assert answer.status_code == 201, answer.text
        grown = peak_mib(service.pid) - before
    finally:
        installation.close()
    rate = megabytes * MIB / 1e6 / seconds
    return [
        Figure(f"upload of {megabytes} MiB", f"{rate:.0f} MB/s", f"plain synced file: {disk:.0f} MB/s"),
        Figure("upload: growth of resident memory", f"{grown:.1f} MiB", "bar: 32 MiB"),
    ]
