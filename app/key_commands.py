"""`charsmith keys`: making, listing and revoking API keys, on the database of the settings.

Needs no running service, and one that runs takes notice with its next request. The store is imported when it is needed:
the other commands start faster without. Invariant: a key is printed once, by the command that makes it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.settings import Settings
from app.terminal import AsJson, DataDir, fail, prepared, print_documents, print_json, print_table, settings_with

if TYPE_CHECKING:
    from app.store.api_keys import ApiKey
    from app.store.database import Database

keys = typer.Typer(help="Make, list and revoke API keys, on the database of the settings.", no_args_is_help=True)

LIMIT = {"min": 1, "max": 1_000_000}
MOST_DAYS = 36_500
DEFAULT_SCOPES = ["read", "generate", "train"]
FIRST = (
    "This is the first key of the installation: from now on every request needs one, and whoever has none is refused."
)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for. No two valid keys have one name.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read (look and download), generate (write and score), train (upload; queue and stop jobs) or admin "
            "(everything, deletions too); may be repeated. Default: read, generate and train."
        ),
    ] = None,
    max_queued_jobs: Annotated[int | None, typer.Option(help="Jobs of the key that may wait.", **LIMIT)] = None,
    max_streams: Annotated[
        int | None, typer.Option(help="Generations and scores of the key at the same time.", **LIMIT)
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option(help="Valid for so many days. Default: until it is revoked.", min=1, max=MOST_DAYS)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: nobody can tell it again."""
    from app.store import api_keys

    settings = prepared(settings_with(data_dir=data_dir))
    with _opened(settings) as database:
        first = not api_keys.list_keys(database)
        key, text = api_keys.create_key(
            database,
            name,
            _scopes(scope or DEFAULT_SCOPES),
            max_queued_jobs=max_queued_jobs,
            max_streams=max_streams,
            lifetime=None if expires_days is None else timedelta(days=expires_days),
        )
    if first:
        sys.stderr.write(f"{FIRST}\n")
    if as_json:
        print_json({"key": text} | _document(key))
    else:
        sys.stderr.write(f"{key.id}, {', '.join(sorted(key.scopes))}. Keep the key, it is shown this once:\n")
        sys.stdout.write(f"{text}\n")


@keys.command("list")
def list_(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the keys that were ever made, newest first."""
    from app.store import api_keys

    with _opened(settings_with(data_dir=data_dir), create=False) as database:
        now, made = database.now(), api_keys.list_keys(database)
    if as_json:
        print_documents(_document(key) for key in made)
        return
    rows = [_document(key) | {"status": _status(key, now)} for key in made]
    print_table(
        {
            "id": lambda k: k["id"],
            "name": lambda k: k["name"],
            "status": lambda k: k["status"],
            "scopes": lambda k: ", ".join(k["scopes"]),
            "queued jobs": lambda k: k["max_queued_jobs"] or "",
            "streams": lambda k: k["max_streams"] or "",
            "created": lambda k: k["created_at"][:19],
            "expires": lambda k: (k["expires_at"] or "")[:19],
        },
        rows,
    )


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Id or name of the key.", metavar="ID_OR_NAME")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key worthless, from the next request on."""
    from app.store import api_keys

    with _opened(settings_with(data_dir=data_dir), create=False) as database:
        revoked = api_keys.revoke_key(database, key)
    if as_json:
        print_json(_document(revoked))
    else:
        sys.stdout.write(f"{revoked.id}  {revoked.name}  revoked\n")


@contextmanager
def _opened(settings: Settings, *, create: bool = True) -> Iterator["Database"]:
    """The database of the settings, made if need be. What goes wrong is said in one line."""
    from app.store.errors import StoreError
    from app.store.names import InvalidName
    from app.store.opening import open_database, open_existing

    try:
        database = (open_database if create else open_existing)(settings.resolved_database_url)
        try:
            yield database
        finally:
            database.close()
    except (StoreError, InvalidName) as error:
        fail(error)


def _scopes(given: list[str]) -> frozenset[Any]:
    from app.store.api_keys import Scope

    known = [scope.value for scope in Scope]
    if unknown := [scope for scope in given if scope not in known]:
        fail(f"--scope: {unknown[0]!r} is none of {', '.join(known)}")
    return frozenset(map(Scope, given))


def _status(key: "ApiKey", now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.is_usable(now) else "expired"


def _document(key: "ApiKey") -> dict[str, Any]:
    """A key as JSON, its times as the service writes them."""
    fields = asdict(key) | {"scopes": sorted(key.scopes)}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}
