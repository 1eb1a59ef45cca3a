"""The training process: it says that it moves while it loads, can be paused there, and tells what cannot be helped."""

import resource
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.processes import Child, start_module
from app.settings import Settings
from models.checkpoint import CheckpointInfo, encode_checkpoint, read_info
from models.config import InvalidConfig, ModelConfig, TrainingConfig
from models.rnn import CharRNN
from models.vocabulary import Vocabulary
from worker import child, launch
from worker.batches import Corpus, CorpusTooShort
from worker.events import Event, Finished, Saved, Started, Ticked
from worker.launch import (
    TRAINING_ENVIRONMENT,
    ChildCrashed,
    TrainingChild,
    TrainingFailed,
    TrainingTask,
    start_anew,
)
from worker.trainer import Diverged, InvalidResumePoint

LIMIT_BYTES = 3 * 2**30
"""Of address space: enough for torch, and not for a network of three."""
TEXT = "Où est l'été? — À l'école, naïf garçon.\n" * 50


class Sent(list[Event]):
    """Keeps what the process sends; asks it to pause after so many messages."""

    def __init__(self, pause_after: int | None = None) -> None:
        super().__init__()
        self.pause_requested = threading.Event()
        self._pause_after = pause_after

    def send(self, event: Event) -> None:
        self.append(event)
        if len(self) == self._pause_after:
            self.pause_requested.set()


def task_of(folder: Path, text: str, normalization: str = "letters") -> TrainingTask:
    path = folder / "corpus.txt"
    path.write_text(text, newline="")
    model = ModelConfig(hidden_size=8, embedding_size=4, normalization=normalization)  # type: ignore[arg-type]
    training = TrainingConfig(steps=2, batch_size=2, sequence_length=16)
    return TrainingTask(model.as_dict(), training.as_dict(), str(path), str(folder), str(folder), "sha", "cpu", 1, None)


def run(task: TrainingTask, sent: Sent) -> Sent:
    child.run(task, sent, sent.pause_requested)
    return sent


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_training_process_that_gets_no_more_memory_says_so_and_takes_nobody_along(tmp_path: Path) -> None:
    task = task_of(tmp_path, TEXT)
    wide = ModelConfig("gru", 16_384, embedding_size=4).as_dict()  # weights of 3 GiB, in one piece
    process = TrainingChild(replace(task, model=wide, compiled=str(Settings().compiled_dir)))
    try:
        resource.prlimit(process.pid, resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        with pytest.raises(TrainingFailed) as failed:
            list(process.events())
        assert failed.value.refusal.code == "out_of_memory"
    finally:
        process.close()


@pytest.mark.parametrize("gently", [False, True])
def test_a_process_that_hangs_while_it_starts_can_be_ended_however_much_it_was_to_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gently: bool
) -> None:
    """A socket holds some hundred kilobytes, which the process reads when it has imported torch."""

    def stopped(*arguments: Any, **options: Any) -> Child:
        started = start_module(*arguments, **options)
        started.process.send_signal(signal.SIGSTOP)
        return started

    monkeypatch.setattr(launch, "start_module", stopped)
    process = TrainingChild(replace(task_of(tmp_path, TEXT), resume_point=bytes(4_000_000)))
    try:
        if gently:
            process.request_pause()
        process.kill()
        with pytest.raises(ChildCrashed) as crashed:
            list(process.events())
        assert crashed.value.exit_code == -signal.SIGKILL
    finally:
        process.close()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "READ_BYTES", 100)
    monkeypatch.setattr(child, "TICK_SECONDS", 0)


def test_a_training_process_has_the_environment_that_makes_it_fast(tmp_path: Path) -> None:
    process = TrainingChild(task_of(tmp_path, TEXT))
    try:
        next(process.events())  # before it runs, its environment reads as empty
        pairs = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
    finally:
        process.close()
    assert {f"{name}={value}" for name, value in TRAINING_ENVIRONMENT.items()} <= {*pairs}
    assert f"NUMBA_CACHE_DIR={tmp_path}" in pairs


@pytest.mark.usefixtures("small_pieces")
def test_every_piece_of_both_passes_over_the_text_is_a_sign_of_life(tmp_path: Path) -> None:
    sent = run(task_of(tmp_path, TEXT), Sent())
    loading = [event for event in sent if event == Ticked("loading", 0)]
    pieces = len(TEXT.encode()) // 100
    assert 2 * pieces <= len(loading) <= 2 * pieces + 6
    assert isinstance(sent[-1], Finished)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("messages", [1, 7, 30], ids=["at once", "in the first pass", "in the second"])
def test_a_pause_while_loading_ends_at_once_and_stores_nothing(tmp_path: Path, messages: int) -> None:
    sent = run(task_of(tmp_path, TEXT), Sent(pause_after=messages))
    assert sent == [Ticked("loading", 0)] * messages + [Finished(0, "paused", None, None)]


def test_a_pause_in_training_stores_a_resume_point(tmp_path: Path) -> None:
    sent = Sent(pause_after=2)
    run(task_of(tmp_path, TEXT), sent)
    kinds = [type(event) for event in sent if not isinstance(event, Ticked)]
    assert kinds == [Started, Saved, Finished]


def test_ticks_are_thinned_out_and_other_events_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "TICK_SECONDS", 1e9)
    sent = run(task_of(tmp_path, TEXT), Sent())
    assert [type(event) for event in sent].count(Ticked) == 1
    assert {Started, Saved, Finished} <= {type(event) for event in sent}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("normalization", ["none", "nfc", "letters"])
def test_a_text_loaded_in_pieces_is_the_corpus_of_the_whole(tmp_path: Path, normalization: str) -> None:
    task = task_of(tmp_path, TEXT, normalization)
    loaded, whole = child.load_corpus(task, lambda: None), Corpus.of(TEXT, normalization)  # type: ignore[arg-type]
    assert loaded.vocabulary == whole.vocabulary
    assert loaded.ids.tolist() == whole.ids.tolist()
    assert not Path(task.text_path).exists()


def test_the_vocabulary_of_a_checkpoint_to_start_from_is_kept_and_the_texts_own_is_added(tmp_path: Path) -> None:
    model = ModelConfig(hidden_size=8, embedding_size=4)
    known = Vocabulary("#Zab")
    file = encode_checkpoint(CharRNN(model, 4), CheckpointInfo(model, known, step=3))
    sent = run(replace(task_of(tmp_path, "abc" * 100, "none"), from_checkpoint=file), Sent())
    started = next(event for event in sent if isinstance(event, Started))
    assert started.vocabulary_size == 5
    first, *_, last = (event.checkpoint for event in sent if isinstance(event, Saved))
    for checkpoint in (first, last):
        assert checkpoint is not None
        assert read_info(checkpoint).vocabulary.characters == "#Zabc"
    assert read_info(first or b"").step == 0


@pytest.mark.parametrize("text", ["\u0301\u0302\u0323" * 100, "漢字" * 100], ids=["marks alone", "no letters"])
def test_a_text_of_which_letters_leaves_nothing_is_too_short(tmp_path: Path, text: str) -> None:
    with pytest.raises(CorpusTooShort, match=r"after normalization `letters`, .*at least 18") as raised:
        run(task_of(tmp_path, text), Sent())
    refusal = child._refusal(raised.value)
    assert refusal is not None
    assert refusal.code == "corpus_too_short"


def memory_refused() -> Exception:
    """What torch raises on the CPU for more memory than there are addresses."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    return raised.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Diverged("training loss", 7), "diverged"),
        (CorpusTooShort(3, 66), "corpus_too_short"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (memory_refused(), "out_of_memory"),
        (InvalidConfig("steps", "must be a whole number"), "invalid"),
        (InvalidResumePoint("the resume point is of another model"), "invalid"),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (OSError(28, "No space left on device"), "disk_full"),
        (OSError(122, "Disk quota exceeded"), "disk_full"),
        (OSError(5, "Input/output error"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_trying_again_would_not_help_is_refused_by_its_name(error: Exception, code: str | None) -> None:
    refusal = child._refusal(error)
    assert (refusal and refusal.code) == code
    if refusal is not None:
        assert type(error).__name__ in refusal.traceback


def test_a_training_process_that_is_told_nothing_ends_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    process, ours = start_anew(task_of(tmp_path, TEXT))
    ours.close()
    assert process.wait() == 1
    assert capfd.readouterr().err == ""


def test_a_training_process_that_has_told_its_end_is_gone_by_itself(tmp_path: Path) -> None:
    process = TrainingChild(replace(task_of(tmp_path, TEXT), compiled=str(Settings().compiled_dir)))
    try:
        assert isinstance([*process.events()][-1], Finished)
        assert process._process.wait() == 0
    finally:
        process.close()


def test_a_training_process_whose_worker_is_gone_ends_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = task_of(tmp_path, TEXT)
    process = TrainingChild(replace(task, training={**task.training, "steps": 10**7}))
    try:
        next(process.events())
        process._connection.close()
        assert process._process.wait(60) == 1
    finally:
        process._process.kill()
        process._process.wait()
    assert capfd.readouterr().err == ""
