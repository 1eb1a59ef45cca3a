"""`charsmith migrate-database`: what moves everything to another database, by opening both itself.

Needs no running service, and refuses one. The store is imported when it is needed: the other commands start faster
without.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.backup_commands import refusals_told
from app.terminal import AsJson, print_json


def migrate_database(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Its address, or the path of an SQLite file.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="An empty database, or a file that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Move all that is stored from one database to another, verified. Service and workers must be stopped."""
    with refusals_told():
        from app.store.moving import move

        with _progress() as tell:
            moved = move(source, target, tell)
    for damaged in moved.damaged:
        sys.stderr.write(f"damaged before, and moved as it is: {damaged}\n")
    if as_json:
        print_json(asdict(moved))
    else:
        sys.stdout.write(f"moved {moved.source} to {moved.target}: {moved.contents}\n")


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    columns = BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
