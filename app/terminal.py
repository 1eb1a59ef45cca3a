"""What the commands share: reading settings, saying why something failed, printing documents, lists and texts.

Knows no torch, no database and no service. Invariant: no control character of a text or a name reaches a terminal,
where it might move the cursor, change the title or answer in the person's name.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.settings import Settings, SettingsError, load_settings, variable_name

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Columns = Mapping[str, Callable[[dict[str, Any]], object]]
"""What a table shows of a document, by the heads of its columns."""
DataDir = Annotated[Path | None, typer.Option(help="Folder of the database.")]
REFUSED = 1
"""Exit status, beside 0, app.command's of Ctrl-C and typer's own 2 for wrong usage."""
LIST_WIDTH = 200
"""A list is as wide as it needs; a narrow terminal breaks its lines."""


def fail(message: object) -> NoReturn:
    """Say why on standard error and end with status 1."""
    sys.stderr.write(f"charsmith: {harmless(str(message))}\n")
    raise typer.Exit(REFUSED)


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All but tab and line feed; and what turns the direction of the text that follows."""


def harmless(text: str) -> str:
    """The text with its control characters spelled out."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def write_text(text: str) -> None:
    """To standard output at once: as it is into a pipe or a file, harmless on a terminal."""
    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


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
    """A document on a line of its own, for programs that read it."""
    told = json.dumps(document, ensure_ascii=False)
    # In JSON such characters stand within strings alone, where an escape means the same.
    sys.stdout.write(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", told) + "\n")


def print_documents(documents: Iterable[object]) -> None:
    """A list, one document on each line; nothing if it is empty."""
    for document in documents:
        print_json(document)


def print_table(columns: Columns, rows: Sequence[dict[str, Any]]) -> None:
    """A line for each row; a column shows what its function makes of the row."""
    table = Table(box=None)
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ignore")  # an id that is cut short is no id
    for row in rows:
        table.add_row(*(escape(harmless(str(show(row)))) for show in columns.values()))
    Console(width=LIST_WIDTH).print(table, soft_wrap=True)
