"""`charsmith backup`, `restore` and `verify`: what keeps the database safe, by opening it themselves.

Need no running service. The store is imported when it is needed: the other commands start faster without.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.terminal import AsJson, DataDir, fail, print_json, settings_with


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; must not exist.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write all that is stored in SQLite to FILE, verified, while everything runs. FILE holds keys: keep it private."""
    settings = settings_with(data_dir=data_dir)
    with refusals_told():
        from app.store.backup import back_up

        contents = back_up(settings.resolved_database_url, file, force=force)
    if as_json:
        print_json({"file": str(file), "contents": asdict(contents)})
    else:
        sys.stdout.write(f"{file}: {contents}\n")


def restore(
    file: Annotated[Path, typer.Argument(help="What `charsmith backup` wrote.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put the backup FILE in the place of the SQLite database, which is kept. Service and workers must be stopped."""
    settings = settings_with(data_dir=data_dir)
    with refusals_told():
        from app.store.restore import restore as put_back

        restored = put_back(settings.resolved_database_url, file)
    if as_json:
        print_json(asdict(restored) | {"aside": restored.aside and str(restored.aside)})
        return
    sys.stdout.write(f"restored {file}: {restored.contents}\n")
    if not restored.asks_for_keys:
        sys.stdout.write("there are no API keys: nobody is asked for one\n")
    else:
        sys.stdout.write(f"valid API keys: {', '.join(restored.keys) or 'none'}\n")
    if not restored.keys_are_current:
        sys.stdout.write("the keys of before could not be read: those revoked since the backup are valid again\n")
    if restored.aside is not None:
        sys.stdout.write(f"the database of before: {restored.aside}\n")


def verify(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Read all that is stored in SQLite, and tell what is damaged. Everything may run meanwhile."""
    settings = settings_with(data_dir=data_dir)
    with refusals_told():
        from app.store.verification import verify_database

        contents = verify_database(settings.resolved_database_url)
    if as_json:
        print_json(asdict(contents))
    else:
        sys.stdout.write(f"{contents}\n")


@contextmanager
def refusals_told() -> Iterator[None]:
    """What the store refuses ends the command with a line that says why."""
    from app.store.errors import StoreError

    try:
        yield
    except (StoreError, OSError) as error:
        fail(error)
