"""How fast the service starts and how much memory it takes, idle."""

import statistics
import time
from pathlib import Path

import httpx

from benchmarks.figures import Figure, resident_mib
from tests.system.harness import Installation, children_of, wait_for


def measure_service(folder: Path, starts: int) -> list[Figure]:
    """Start time, median of several, and resident memory of the service and of its generation process."""
    seconds = []
    for number in range(starts):
        (folder / str(number)).mkdir()
        installation = Installation(folder / str(number))
        try:
            begin = time.perf_counter()
            service = installation.start("api")
            wait_for("the service", lambda i=installation: _alive(i))
            seconds.append(time.perf_counter() - begin)
            installation.wait_until_ready(workers=0)
            memory = resident_mib(service.pid)
            generation = max((resident_mib(pid) for pid in children_of(service.pid)), default=0.0)
        finally:
            installation.close()
    return [
        Figure("service: start to first answer", f"{statistics.median(seconds):.2f} s", f"of {starts} starts"),
        Figure("service: resident memory", f"{memory:.0f} MiB", "imports no torch"),
        Figure("generation process: resident memory", f"{generation:.0f} MiB", "torch, no model loaded"),
    ]


def _alive(installation: Installation) -> bool | None:
    try:
        return installation.http.get("/healthz").is_success or None
    except httpx.HTTPError:
        return None
