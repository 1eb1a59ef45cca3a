"""The benchmark runs from end to end; its figures are those of a moment and say nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import once
from tests.system.harness import TEXT

pytestmark = [once, pytest.mark.system]


def test_a_tiny_benchmark_measures_sampling_speed_scale_and_quality(tmp_path: Path) -> None:
    corpus = tmp_path / "bottles.txt"
    corpus.write_text(TEXT)
    small = ("--model", '{"hidden_size": 16}', "--training", '{"batch_size": 8}')
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--threads", "1", "--corpus", str(corpus), *small]
    parts = [word for part in ("sampling", "speed", "scale", "quality") for word in ("--only", part)]
    parts += ["--nanogpt-seconds", "10"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([*command, *parts], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    first, *tables = run.stdout.split("\n", 1)
    assert "of which 1 compute" in first
    for title in (
        "the engine alone",
        "Scoring",
        "Training speed",
        "against corpus size",
        "against vocabulary",
        "Quality: bottles.txt",
    ):
        assert title in tables[0]
    assert "gru 1x16" in tables[0]
    assert "time to 1.88 (cold 64)" in tables[0]
    assert "loss within 1 s" in tables[0]


def test_a_tiny_benchmark_of_serving_has_every_row() -> None:
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--threads", "1", "--only", "serving"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    for row in (
        "4 clients over HTTP",
        "who computes",
        "x the plain loop",
        "first character, 3 others running",
        "answer of /healthz",
        "alone: priming",
        "time to the first character",
        "pace that 8 others keep",
        "streams that nobody reads",
        "80 clients at once: admitted",
        "80 clients at once: refused",
        "80 clients at once: growth of resident memory",
        "kill -9 of the generation process: streams that end",
        "kill -9 of the generation process: a new stream's",
    ):
        assert row in run.stdout
    assert "all whole, none dropped: met" in run.stdout


def test_a_tiny_benchmark_of_the_queue_trains_every_job_once_though_workers_die() -> None:
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--threads", "1", "--only", "queue"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "The queue alone" in done.stdout
    assert "3 short jobs, trained by real workers" in done.stdout
    assert "SQLite" in done.stdout


def test_a_tiny_benchmark_of_the_cluster_trains_every_job_on_it() -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'charsmith[ray]'")
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--threads", "1", "--only", "cluster"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "2 short jobs on a Ray cluster" in done.stdout
    assert "How soon a node hears of it" in done.stdout
