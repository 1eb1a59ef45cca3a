"""`make demo` without a terminal: what a newcomer's log shows."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.demo import plain_text
from tests.databases import once
from tests.system.harness import TEXT, Installation

pytestmark = [once, pytest.mark.system]


def run_demo(installation: Installation, corpus: Path) -> str:
    command = [sys.executable, "-m", "app.demo", "--minutes", "0.05", "--corpus", str(corpus), "--exit"]
    done = subprocess.run(
        command,
        env=installation.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_trains_writes_and_ends_and_a_second_run_reuses_what_is_there(
    installation: Installation, tmp_path: Path
) -> None:
    corpus = tmp_path / "my bottles.txt"
    corpus.write_text(TEXT)
    first = run_demo(installation, corpus)
    assert "chars/s" in first
    assert "validation loss" in first
    assert "/docs" in first
    written = first.split("writes", 1)[1]
    assert len(written) > 500
    assert "already trained" in run_demo(installation, corpus)


def test_a_play_becomes_plain_text_with_speakers_and_without_markup() -> None:
    markdown = "# Hamlet\n\n## ACT I\n\n_Enter BERNARDO_\n\n**BERNARDO**  \nWho's there?  \n_\\[Aside]_  \n"
    assert plain_text(markdown) == "Hamlet\n\nACT I\n\nEnter BERNARDO\n\nBERNARDO:\nWho's there?\n[Aside]\n"
