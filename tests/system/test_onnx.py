"""A model that leaves as an ONNX file and comes back, from outside: onnxruntime writes what the service writes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.config import CELLS
from models.sampling import SamplingConfig
from tests.databases import once
from tests.onnx_writing import written_by_onnxruntime
from tests.system.harness import SMALL, Installation

pytestmark = [once, pytest.mark.system]

PROMPT, CHARACTERS, SEED = "99 bottles", 200, 5
SAMPLING = {"temperature": 0.7, "top_k": 20}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service that multiplies in float32, as onnxruntime does, with a model of each cell, named after it."""
    made = Installation(tmp_path_factory.mktemp("exact"))
    made.environment["CHARSMITH_GENERATION_PRECISION"] = "float32"
    made.start("serve")
    made.wait_until_ready()
    made.upload()
    jobs = []
    for cell in CELLS:
        request = {"corpus": "bottles", "name": cell, "model": SMALL | {"cell": cell, "num_layers": 2}}
        training = {"steps": 60, "batch_size": 8, "evaluate_every": 30}
        jobs.append(made.http.post("/jobs", json=request | {"training": training}).raise_for_status().json())
    for job in jobs:
        made.wait_for_status(job["id"], "succeeded")
    yield made
    made.close()


def command(exact: Installation, folder: Path, *arguments: str) -> Any:
    run = [sys.executable, "-m", "app.cli", *arguments, "--json"]
    done = subprocess.run(run, env=exact.environment, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sampling", [{"temperature": 0}, SAMPLING])
def test_onnxruntime_writes_what_the_service_writes(
    exact: Installation, cell: str, sampling: dict[str, float], tmp_path: Path
) -> None:
    pulled = command(exact, Path(__file__).parents[2], "pull", cell, str(tmp_path), "--format", "onnx")
    request = {"model": cell, "prompt": PROMPT, "max_characters": CHARACTERS, "seed": SEED}
    ours = exact.http.post("/generate", json=request | sampling).raise_for_status().text

    assert len(ours) == CHARACTERS
    file = Path(pulled["file"]).read_bytes()
    assert written_by_onnxruntime(file, PROMPT, CHARACTERS, SamplingConfig(**sampling), SEED) == ours


def test_what_left_as_onnx_comes_back_as_the_checkpoint_that_it_was(exact: Installation, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    pulled = command(exact, root, "pull", "lstm", str(tmp_path / "mine.onnx"), "--format", "onnx")
    pushed = command(exact, root, "push", pulled["file"], "--name", "copy")

    assert pushed["config"] == exact.http.get("/models/lstm").json()["config"]
    assert exact.http.get("/models/copy/download").content == exact.http.get("/models/lstm/download").content
