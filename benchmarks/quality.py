"""What one minute of training with default settings reaches, through the service."""

import math
from pathlib import Path

from benchmarks.figures import Figure
from tests.system.harness import Installation


def measure_quality(folder: Path, corpus: Path, minutes: float) -> list[Figure]:
    """Validation loss (last 10 %, carried state) of the best checkpoint of a default job."""
    if not corpus.exists():
        return [Figure("quality", "skipped", f"{corpus} is not there; --corpus names another text")]
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
    return [
        Figure(
            f"validation loss after {minutes:g} min, defaults",
            f"{loss:.4f} nats",
            f"{loss / math.log(2):.3f} bits per character, best at step {job['best']['step']} of {progress['steps']}",
        ),
        Figure("training speed", f"{progress['characters_per_second']:,.0f} characters/s", "service idle"),
    ]
