"""`charsmith` as a client: the real command against a real service, seen as a shell sees it."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.generating import GeneratingService, generating_service

TEXT = b"to be, or not to be, that is the question\n" * 100
COMMAND = [sys.executable, "-m", "app.cli"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratingService]:
    with generating_service(tmp_path_factory.mktemp("commands")) as made:
        yield made


def environment(service: GeneratingService, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CHARSMITH_")}
    return ours | {"CHARSMITH_PORT": str(service.port)} | more


def charsmith(service: GeneratingService, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(service),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answered(service: GeneratingService, *arguments: object) -> str:
    done = charsmith(service, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_a_terminal(service: GeneratingService, *arguments: str) -> bytes:
    """What a command writes to a terminal."""
    ours, its = pty.openpty()
    subprocess.run([*COMMAND, *arguments], env=environment(service), stdout=its, timeout=60, check=True)
    os.close(its)
    received = b""
    try:
        while piece := os.read(ours, 65536):
            received += piece
    except OSError:  # how Linux tells the end
        pass
    os.close(ours)
    return received


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "hamlet.txt"
    file.write_bytes(TEXT)
    return file


def test_a_job_is_queued_listed_paused_resumed_cancelled_and_deleted(service: GeneratingService, text: Path) -> None:
    set_ = ("--set", "training.evaluate_every=50", "--set", "training.precision=float32", "--set", "model.dropout=0")
    job = json.loads(answered(service, "train", text, "--steps", "10", *set_, "--detach", "--json"))
    assert job["training"]["evaluate_every"] == 50
    assert (job["training"]["precision"], job["model"]["dropout"], job["training"]["steps"]) == ("float32", 0, 10)

    listed = [json.loads(line) for line in answered(service, "jobs", "--json").splitlines()]
    assert listed == [service.http.get(f"/jobs/{job['id']}").json()]
    assert job["id"] in answered(service, "jobs")
    assert answered(service, "jobs", "--status", "failed", "--json") == ""
    assert "training.steps: 10\n" in answered(service, "jobs", "show", job["id"])

    assert answered(service, "jobs", "pause", job["id"]) == f"{job['id']}  paused\n"
    assert json.loads(answered(service, "jobs", "resume", job["id"], "--json"))["status"] == "queued"
    assert answered(service, "jobs", "cancel", job["id"]) == f"{job['id']}  cancelled\n"
    assert charsmith(service, "jobs", "cancel", job["id"]).returncode == 1
    assert answered(service, "jobs", "delete", job["id"]) == ""
    assert charsmith(service, "jobs", "show", job["id"]).returncode == 1


def test_a_refused_setting_is_named_and_wrong_usage_is_told_apart(service: GeneratingService, text: Path) -> None:
    refused = charsmith(service, "train", text, "--set", "training.steps=many")
    assert refused.returncode == 1
    assert refused.stderr.startswith("charsmith: training.steps: ")
    unknown = charsmith(service, "train", text, "--set", "training.step=5")
    assert "training.step: " in unknown.stderr
    for arguments in (["train", str(text), "--set", "steps=5"], ["jobs", "--json", "show", "x"], ["jobs", "shwo"]):
        assert charsmith(service, *arguments).returncode == 2
    away = charsmith(service, "jobs", "--url", "http://127.0.0.1:1")
    assert away.returncode == 1
    assert "`charsmith serve` starts a service" in away.stderr


def test_a_jobs_numbers_are_printed_and_its_curve_is_saved(
    service: GeneratingService, text: Path, tmp_path: Path
) -> None:
    job, other = (
        json.loads(answered(service, "train", text, "--name", name, "--steps", "10", "--detach", "--json"))["id"]
        for name in ("first", "second")
    )
    assert answered(service, "jobs", "metrics", job).startswith("step,epoch,train_loss,")
    assert answered(service, "jobs", "metrics", job, "--json") == ""

    saved = json.loads(answered(service, "jobs", "loss", job, tmp_path, "--theme", "dark", "--json"))
    assert saved["file"] == str(tmp_path / "first-loss.png")
    assert (tmp_path / "first-loss.png").read_bytes().startswith(b"\x89PNG")
    both = tmp_path / "both.svg"
    answered(service, "jobs", "loss", job, both, "--compare", other)
    assert all(f"<!-- {name} -->" in both.read_text() for name in ("first", "second"))
    assert charsmith(service, "jobs", "loss", job, both).returncode == 1, "it is there"
    assert "'nobody'" in charsmith(service, "jobs", "loss", job, "--compare", "nobody").stderr
    for each in (job, other):
        answered(service, "jobs", "cancel", each)


def test_a_corpus_is_added_shown_given_back_and_deleted(service: GeneratingService, tmp_path: Path) -> None:
    wild = b"a\x1b]0;owned\x07b\xc2\x9b31m\n" * 20
    (tmp_path / "wild.txt").write_bytes(wild)
    corpus = json.loads(answered(service, "corpora", "add", tmp_path / "wild.txt", "--json"))
    assert "wild" in answered(service, "corpora")
    assert json.loads(answered(service, "corpora", "show", "wild", "--json"))["id"] == corpus["id"]
    assert "\x1b" not in answered(service, "corpora", "show", "wild")
    answered(service, "corpora", "get", "wild", tmp_path / "copy.txt")
    assert (tmp_path / "copy.txt").read_bytes() == wild
    piped = subprocess.run(
        [*COMMAND, "corpora", "get", "wild"], env=environment(service), capture_output=True, timeout=60, check=True
    )
    assert piped.stdout == wild
    shown = on_a_terminal(service, "corpora", "get", "wild")
    assert b"a\\x1b]0;owned\\x07b\\x9b31m" in shown
    assert b"\x1b" not in shown
    assert answered(service, "corpora", "delete", "wild") == ""
    assert charsmith(service, "corpora", "show", "wild").returncode == 1


def test_a_model_is_pulled_whole_and_pushed_back(service: GeneratingService, tmp_path: Path) -> None:
    assert "tiny" in answered(service, "models")
    assert json.loads(answered(service, "models", "show", "tiny", "--json"))["name"] == "tiny"
    steps = [
        json.loads(line)["step"] for line in answered(service, "models", "checkpoints", "tiny", "--json").splitlines()
    ]
    pulled = json.loads(answered(service, "pull", "tiny", tmp_path, "--json"))
    assert Path(pulled["file"]) == tmp_path / f"tiny-{steps[0]}.safetensors"
    file = Path(pulled["file"])
    weights = service.http.get("/models/tiny/download").content
    assert file.read_bytes() == weights

    file.write_bytes(b"mine")
    refused = charsmith(service, "pull", "tiny", file)
    assert (refused.returncode, file.read_bytes()) == (1, b"mine")
    assert "--force" in refused.stderr
    answered(service, "pull", "tiny", file, "--force")
    assert file.read_bytes() == weights
    assert list(tmp_path.iterdir()) == [file], "no part is left over"

    copy = json.loads(answered(service, "push", file, "--name", "copy", "--json"))
    assert copy["name"] == "copy"
    assert answered(service, "models", "delete", copy["id"]) == ""
    file.write_bytes(b"no model")
    assert charsmith(service, "push", file).returncode == 1


def test_a_text_goes_on_from_the_state_that_json_told(service: GeneratingService, tmp_path: Path) -> None:
    asked = ("generate", "tiny", "to", "--seed", "5", "--json", "--temperature", "0.7")
    whole = json.loads(answered(service, *asked, "--max-characters", "40"))
    first = json.loads(answered(service, *asked, "--max-characters", "15"))
    (tmp_path / "state").write_text(first["state"])
    for state in (first["state"], f"@{tmp_path / 'state'}"):
        rest = answered(service, "generate", "tiny", "--continue-from", state, "--max-characters", "25")
        assert first["text"] + rest == whole["text"] + "\n"
    several = json.loads(answered(service, *asked, "--n", "3"))
    assert len(several["samples"]) == 3
    assert "--- 2\nto" in answered(service, "generate", "tiny", "to", "--n", "3", "--max-characters", "5")


def test_a_score_tells_the_likeliest_characters(service: GeneratingService, text: Path) -> None:
    text.write_text("to be")
    scores = json.loads(answered(service, "score", "tiny", text, "--top", "2", "--json"))
    assert [len(likeliest) for likeliest in scores["top"]] == [2] * 5
    assert len(answered(service, "score", "tiny", text, "--top", "2").splitlines()) == 6


@pytest.mark.parametrize(("port", "completed"), [(None, "tiny\n"), ("1", "")])
def test_a_shell_completes_names_and_hears_nothing_of_a_service_that_is_away(
    service: GeneratingService, port: str | None, completed: str
) -> None:
    shell = {"_CHARSMITH_COMPLETE": "complete_bash", "COMP_WORDS": "charsmith generate ti", "COMP_CWORD": "2"}
    place = {"CHARSMITH_PORT": port} if port else {}
    done = subprocess.run(
        COMMAND, env=environment(service, **shell, **place), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (completed.strip(), "")
