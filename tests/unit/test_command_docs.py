"""docs/cli.md and the commands say the same."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from app.cli import cli
from app.command import INTERRUPTED, main

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def commands(command: Any, path: str = "charsmith") -> Iterator[tuple[str, Any]]:
    """Each command and group, by what a person types."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


def sections() -> dict[str, str]:
    """What stands below each heading of a command."""
    parts = re.split(r"^### (charsmith.*)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def told_by(command: Any) -> set[str]:
    """Names of all its options and arguments, but `--help`, which every command has."""
    options = {o for p in command.params if p.param_type_name == "option" for o in (*p.opts, *p.secondary_opts)}
    arguments = {p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"}
    return (options | arguments) - {"--help"}


def test_every_command_and_option_is_documented_and_none_that_is_not_there() -> None:
    documented = sections()
    known = dict(commands(typer.main.get_command(cli)))
    assert documented.keys() == known.keys()
    for path, command in known.items():
        rows = re.findall(r"^\| (`.*?`) \|", documented[path], flags=re.MULTILINE)
        assert {name for row in rows for name in re.findall("`(.*?)`", row)} == told_by(command), path


def test_ctrl_c_while_a_command_is_still_being_imported_ends_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.main", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == INTERRUPTED == 130


def test_a_person_can_ask_for_the_version() -> None:
    told = CliRunner().invoke(cli, ["--version"])
    assert (told.exit_code, told.output) == (0, f"charsmith {version('charsmith')}\n")
