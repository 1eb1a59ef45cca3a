"""What the commands share: reading settings, saying why something failed, printing lists.

Knows no torch, no database and no service.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from app.settings import Settings, SettingsError, load_settings, variable_name

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the database.")]
LIST_WIDTH = 200
"""A list is as wide as it needs; a narrow terminal breaks its lines."""


def fail(message: object) -> NoReturn:
    """Say why on standard error and end with status 1."""
    sys.stderr.write(f"charsmith: {message}\n")
    raise typer.Exit(1)


def settings_with(**flags: Any) -> Settings:
    """The settings, with flags put into the environment, so that child processes see the same."""
    for name, value in flags.items():
        if value is not None:
            os.environ[variable_name(name)] = str(value)
    try:
        return load_settings()
    except SettingsError as error:
        fail(error)


def prepared(settings: Settings) -> Settings:
    """The same settings, their data folder made. Fails in one line where it cannot be.

    From here on this process and its children make files that nobody else may read: texts, and the key that states are
    signed with, lie in the database.
    """
    os.umask(0o077)
    try:
        settings.temporary_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{variable_name('data_dir')}: {error}")
    return settings


def print_json(document: object) -> None:
    """For programs that read it."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Mapping[str, Callable[[dict[str, Any]], object]], rows: Sequence[dict[str, Any]]) -> None:
    """A line for each row; a column shows what its function makes of the row."""
    table = Table(box=None)
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ignore")  # an id that is cut short is no id
    for row in rows:
        table.add_row(*(str(show(row)) for show in columns.values()))
    Console(width=LIST_WIDTH).print(table, soft_wrap=True)
