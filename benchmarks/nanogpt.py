"""nanoGPT's own CPU recipe, run from a checkout that the caller has: the anchor of the quality figures.

Nothing of it is kept here and nothing is written into the checkout: data and results lie in a temporary folder.
"""

import os
import pickle
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.vocabulary import Vocabulary

ITERATIONS = 2000
EVALUATION_INTERVAL = 250
"""As config/train_shakespeare_char.py has it."""
ESTIMATE_ITERATIONS = 60
RECIPE = (
    "config/train_shakespeare_char.py",
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=1",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    f"--lr_decay_iters={ITERATIONS}",
    "--dropout=0.0",
)
"""Of its README, "I only have a macbook"; `--max_iters` comes with the call."""

ITERATION = re.compile(r"iter (\d+): loss \S+, time ([\d.]+)ms")
EVALUATION = re.compile(r"step \d+: train loss \S+, val loss ([\d.]+)")


class Anchor(NamedTuple):
    """What nanoGPT took and reached. `val_loss` is its own estimate, 240 random cold windows of 64 characters."""

    seconds: float
    val_loss: float | None
    how: str


def prepare(corpus: Path, folder: Path) -> None:
    """The text as its data/shakespeare_char/prepare.py would leave it: ids, split 90 to 10, and the vocabulary."""
    text = corpus.read_text(encoding="utf-8")
    vocabulary = Vocabulary.of([text])
    ids = vocabulary.encode(text).astype(np.uint16)
    cut = int(len(ids) * 0.9)
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    characters = vocabulary.characters
    meta = {
        "vocab_size": len(characters),
        "itos": dict(enumerate(characters)),
        "stoi": {character: index for index, character in enumerate(characters)},
    }
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def measure(checkout: Path, corpus: Path, folder: Path, threads: int) -> Anchor:
    """The whole recipe: from its first iteration to its last, evaluations and checkpoints included."""
    output = _run(checkout, corpus, folder, threads, ITERATIONS)
    losses = [float(found[1]) for _, line in output if (found := EVALUATION.match(line))]
    return Anchor(_seconds(output), losses[-1], "measured in this run")


def estimate(checkout: Path, corpus: Path, folder: Path, threads: int) -> Anchor:
    """Its wall time from the first iterations: what a short run can afford."""
    output = _run(checkout, corpus, folder, threads, ESTIMATE_ITERATIONS)
    first, *others = [float(found[2]) / 1000 for _, line in output if (found := ITERATION.match(line))]
    iteration = statistics.median(others)
    evaluations = ITERATIONS // EVALUATION_INTERVAL + 1
    seconds = (ITERATIONS + 1) * iteration + evaluations * (first - iteration)  # iteration 0 evaluates as well
    return Anchor(seconds, None, f"estimated from {ESTIMATE_ITERATIONS} iterations")


def _run(checkout: Path, corpus: Path, folder: Path, threads: int, iterations: int) -> list[tuple[float, str]]:
    """Its output, each line with the time at which it came."""
    data = folder / "nanogpt"
    data.mkdir()
    prepare(corpus, data)
    paths = [f"--dataset={data.resolve()}", f"--out_dir={(folder / 'nanogpt-out').resolve()}"]
    command = [sys.executable, "-u", "train.py", *RECIPE, f"--max_iters={iterations}", *paths]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    log = folder / "nanogpt.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        output = [(time.perf_counter(), line) for line in process.stdout]
    if process.wait() != 0:
        raise RuntimeError(f"nanoGPT failed: {log.read_text()[-2000:]}")
    return output


def _seconds(output: list[tuple[float, str]]) -> float:
    """From the beginning of iteration 0, which its line tells at its end, to the end of the last."""
    iterations = [(at, float(found[2]) / 1000) for at, line in output if (found := ITERATION.match(line))]
    return iterations[-1][0] - iterations[0][0] + iterations[0][1]
