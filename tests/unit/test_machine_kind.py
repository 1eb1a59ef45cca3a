"""On which kinds of machine a training was computed: told, carried in resume points, and told apart."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.config import ModelConfig, TrainingConfig
from worker import machine_kind, trainer
from worker.batches import Corpus
from worker.events import Saved, Started
from worker.resume_point import ResumePoint

MODEL = ModelConfig("gru", hidden_size=8, embedding_size=4)
TRAINING = TrainingConfig(steps=4, batch_size=2, sequence_length=8, precision="float32")
CORPUS = Corpus.of("to be, or not to be\n" * 20)


def stretch(monkeypatch: pytest.MonkeyPatch, kind: str, resume: bytes | None) -> tuple[tuple[str, ...], bytes]:
    """What a training tells of its machines, on a machine of this kind, and its first resume point."""
    monkeypatch.setattr(trainer, "machine_kind", lambda _: kind)
    events = trainer.train(MODEL, TRAINING, CORPUS, resume=resume, pause_requested=lambda: True)
    told = list(events)
    (started,) = [event for event in told if isinstance(event, Started)]
    (saved,) = [event for event in told if isinstance(event, Saved)]
    return started.machines, saved.resume_point


def test_a_training_names_each_kind_of_machine_that_it_moved_to(monkeypatch: pytest.MonkeyPatch) -> None:
    resume: bytes | None = None
    told = []
    for kind in ("old", "old", "new", "new", "old"):
        machines, resume = stretch(monkeypatch, kind, resume)
        told.append(machines)
    assert told == [("old",), ("old",), ("old", "new"), ("old", "new"), ("old", "new", "old")]


def test_a_resume_point_from_before_machines_were_named_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _, resume = stretch(monkeypatch, "old", None)
    point = ResumePoint.decode(resume)
    del point.values["machines"]
    assert stretch(monkeypatch, "new", point.encode())[0] == ("new",)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2", "Zen, "),
        ("fpu avx512_bf16 avx2", "Zen avx512_bf16, "),
        ("amx_tile amx_bf16 avx512_bf16", "Zen avx512_bf16 amx_bf16 amx_tile, "),
    ],
)
def test_instructions_that_change_sums_belong_to_the_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Zen\nflags\t\t: {flags}\n\n")
    monkeypatch.setattr(machine_kind, "CPU_FILE", tmp_path / "cpuinfo")
    kind = machine_kind.machine_kind("cpu")
    assert kind.startswith(expected)
    assert ", torch 2." in kind


def test_a_machine_that_names_no_processor_has_a_kind_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_kind, "CPU_FILE", tmp_path / "missing")
    assert ", torch 2." in machine_kind.machine_kind("cpu")


@pytest.mark.parametrize("module", ["worker.__main__", "worker.ray_driver", "worker.ray_cluster", "worker.ray_actor"])
def test_a_worker_and_a_dispatcher_import_no_torch(module: str) -> None:
    if module.startswith("worker.ray_"):
        pytest.importorskip("ray", reason="Ray is an extra")
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
