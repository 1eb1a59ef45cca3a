"""What a default job reaches through the service: upload, worker, database and all."""

import math
from pathlib import Path

from benchmarks.figures import Figure
from tests.system.harness import Installation


def measure_job(folder: Path, corpus: Path, minutes: float) -> list[Figure]:
    """Validation loss (carried) of the best checkpoint of a job that gives a corpus and a budget, nothing else."""
    installation = Installation(folder)
    del installation.environment["CHARSMITH_TORCH_THREADS"]
    try:
        installation.start("serve")
        installation.wait_until_ready()
        installation.upload(corpus.read_text(encoding="utf-8"), "text")
        request = {"corpus": "text", "training": {"minutes": minutes}}
        job = installation.http.post("/jobs", json=request).json()
        job = installation.wait_for_status(job["id"], "succeeded", seconds=minutes * 90 + 60)
    finally:
        installation.close()
    loss, progress = job["best"]["val_loss"], job["progress"]
    step = f"best at step {job['best']['step']} of {progress['steps']}"
    speed = f"{progress['characters_per_second']:,.0f} characters/s, the service's own choice of threads"
    return [
        Figure(
            f"a default job through the service, {minutes:g} min (carried)",
            f"{loss:.4f}",
            f"{loss / math.log(2):.3f} bits per character, {step}",
        ),
        Figure("its training speed", speed, "service idle"),
    ]
