"""The memory that a training needs is told before, and never too high."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models import memory_estimate
from models.config import CELLS, ModelConfig, TrainingConfig
from models.lanes import cut_into_lanes
from models.memory_estimate import RESTING_BYTES, available_memory_bytes, memory_bytes, readable

ROOT = Path(__file__).parents[2]
LONG = 10**9
"""Characters of a text that fills all lanes."""


def test_the_estimate_grows_with_everything_that_costs_some() -> None:
    base = memory_bytes(ModelConfig(), TrainingConfig(), 65, LONG)

    assert base > RESTING_BYTES * ModelConfig().parameter_count(65)
    for model in (ModelConfig(hidden_size=513), ModelConfig(num_layers=2)):
        assert memory_bytes(model, TrainingConfig(), 65, LONG) > base
    assert memory_bytes(ModelConfig(cell="gru"), TrainingConfig(), 65, LONG) < base
    for training in (
        TrainingConfig(batch_size=33),
        TrainingConfig(sequence_length=65),
        TrainingConfig(precision="float32"),
    ):
        assert memory_bytes(ModelConfig(), training, 65, LONG) > base
    assert memory_bytes(ModelConfig(), TrainingConfig(), 66, LONG) > base
    assert memory_bytes(ModelConfig(hidden_size=16_384), TrainingConfig(), 65, LONG) > 16 * 8e8, "gradients count"


def test_a_short_text_fills_few_lanes_and_needs_no_memory_for_more() -> None:
    model, many, few = ModelConfig(hidden_size=16), TrainingConfig(batch_size=4096), TrainingConfig(batch_size=16)

    assert memory_bytes(model, many, 65, 600) == memory_bytes(model, few, 65, 600)
    assert memory_bytes(model, many, 65, 6_000) > memory_bytes(model, few, 65, 6_000)
    # One lane of 65 characters is read in two windows of 33, not in one of 64.
    assert cut_into_lanes(66, 1, 64).longest_window == 33
    assert memory_bytes(model, many, 65, 73) < memory_bytes(model, many, 65, 72)


def test_a_large_vocabulary_costs_nothing_where_only_letters_are_left_of_it() -> None:
    letters = ModelConfig(normalization="letters")

    assert memory_bytes(letters, TrainingConfig(), 60_000, LONG) == memory_bytes(letters, TrainingConfig(), 27, LONG)
    assert memory_bytes(letters, TrainingConfig(), 26, LONG) < memory_bytes(letters, TrainingConfig(), 27, LONG)
    nfc = ModelConfig(normalization="nfc")
    assert memory_bytes(nfc, TrainingConfig(), 60_000, LONG) > memory_bytes(nfc, TrainingConfig(), 27, LONG)


@pytest.mark.parametrize("normalization", ["nfc", "letters"])
def test_a_text_that_is_normalized_may_be_short_afterwards(normalization: str) -> None:
    plain = ModelConfig(hidden_size=16)
    normalized = replace(plain, normalization=normalization)

    assert memory_bytes(normalized, TrainingConfig(), 27, LONG) <= memory_bytes(plain, TrainingConfig(), 27, 73)


MEASURE = """
import ctypes
import gc
import sys
from pathlib import Path
import numpy as np
from models.config import ModelConfig, TrainingConfig
from models.memory_estimate import memory_bytes
from worker.batches import Lanes
from worker.learner import Learner

def told(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

def steps(model, training, vocabulary_size, characters):
    ids = np.random.default_rng(0).integers(0, vocabulary_size, characters)
    trained_on = characters - training.validation_characters(characters)
    lanes = Lanes(ids[:trained_on], training.batch_size, training.sequence_length)
    learner = Learner(model, training, vocabulary_size, lanes, "cpu")
    for step in range(2):
        learner.update(step, 1e-3)

def compare(cell, vocabulary_size, characters, **settings):
    shape = {name: settings.pop(name) for name in ("hidden_size", "embedding_size") if name in settings}
    model = ModelConfig(cell=cell, dropout=0.0, **{"embedding_size": 32, **shape})
    training = TrainingConfig(steps=2, **settings)
    steps(model, TrainingConfig(steps=2, batch_size=2, sequence_length=8, precision=training.precision), 5, 100)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # or what the case before has freed would be taken again, unseen
    Path("/proc/self/clear_refs").write_text("5")
    before = told("VmRSS:")
    steps(model, training, vocabulary_size, characters)
    estimate = memory_bytes(model, training, vocabulary_size, characters)
    print(estimate, told("VmHWM:") - before)

"""
LONG_STEP = "batch_size=256, sequence_length=256"
CASES = {cell: f'"{cell}", 20, 80_000, hidden_size=80, {LONG_STEP}' for cell in CELLS}
CASES |= {
    "a large vocabulary": '"gru", 4000, 60_000, hidden_size=16, batch_size=64, sequence_length=128',
    "a large vocabulary, of which few are drawn": '"gru", 40_000, 60_000, hidden_size=256, softmax_samples=100, '
    "batch_size=4, sequence_length=32",
    "a large network": '"rnn_tanh", 10, 2_000, hidden_size=2500, batch_size=1, sequence_length=4',
    "a wide embedding": f'"gru", 20, 80_000, hidden_size=64, embedding_size=2_000, {LONG_STEP}',
    "a short text": '"gru", 20, 40_000, hidden_size=256, batch_size=4096, sequence_length=256',
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is told by Linux alone")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_takes_at_least_what_was_estimated_and_not_many_times_as_much(precision: str) -> None:
    """In a process of its own, which shows a peak; so much that what else it takes hardly matters."""
    calls = "".join(f"compare({case}, precision={precision!r})\n" for case in CASES.values())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE + calls],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    for name, line in zip(CASES, done.stdout.splitlines(), strict=True):
        estimate, taken = map(int, line.split())
        assert 20e6 < estimate < taken < 6 * estimate, (name, readable(estimate), readable(taken))


@pytest.mark.parametrize(
    ("limits", "available"),
    [
        ((), None),
        (("max\n",), None),
        (("9223372036854771712\n",), None),  # version 1 without a limit
        (("1048576\n",), 1048576),
        (("max\n", "2097152\n"), 2097152),
        (("", "2097152\n"), 2097152),
    ],
)
def test_a_container_has_the_memory_that_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: tuple[str, ...], available: int | None
) -> None:
    files = [tmp_path / str(number) for number in range(2)]
    for file, text in zip(files, limits, strict=False):
        file.write_text(text)
    monkeypatch.setattr(memory_estimate, "LIMIT_FILES", files)

    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available_memory_bytes() == (available or physical)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB"), (2**60, "1048576.0 TiB")],
)
def test_a_size_is_written_for_people(size: int, text: str) -> None:
    assert readable(size) == text
