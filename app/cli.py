"""The command `charsmith`: starts the service, and is a client of a running one.

Knows no torch: what it does to a running service, anyone can do over HTTP. Only `keys`, what keeps the database safe
(app.backup_commands) and what moves it (app.moving_commands) open it. Each group of commands has a file of its own.
"""

import os
from importlib.metadata import version
from typing import Annotated

import typer

from app import logs
from app.backup_commands import backup, restore, verify
from app.corpus_commands import corpora
from app.fault_points import FaultError, arm
from app.job_commands import jobs
from app.key_commands import keys
from app.model_commands import models, pull, push
from app.moving_commands import migrate_database
from app.processes import become_module, end_well_when_asked, end_with_parent, parent_socket, started_by_parent
from app.settings import SettingsError
from app.supervisor import serve as supervise
from app.terminal import DataDir, fail, prepared, settings_with
from app.train_command import train
from app.writing_commands import generate, score

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"charsmith {version('charsmith')}")
        raise typer.Exit


@cli.callback()
def charsmith(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Tell the version and end.")
    ] = False,
) -> None:
    """Train character-level recurrent language models on your texts, and stream what they write."""


Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
Device = Annotated[str | None, typer.Option(help="Where to train: auto, cpu, cuda.")]


@cli.command()
def serve(data_dir: DataDir = None, host: Host = None, port: Port = None, device: Device = None) -> None:
    """Run the service and one worker on this machine."""
    settings = prepared(settings_with(data_dir=data_dir, host=host, port=port, device=device))
    logs.set_up("serve", settings.log_level, settings.log_format)
    raise typer.Exit(supervise())


@cli.command()
def api(data_dir: DataDir = None, host: Host = None, port: Port = None) -> None:
    """Run the service alone; workers are started elsewhere."""
    end_well_when_asked()
    from app.server import run  # FastAPI takes a second to import: the client commands do without
    from app.store.errors import StoreError

    settings = prepared(settings_with(data_dir=data_dir, host=host, port=port))
    try:
        arm(os.environ)
        run(settings)
    except (FaultError, SettingsError, StoreError) as error:
        fail(error)


@cli.command()
def worker(data_dir: DataDir = None, device: Device = None) -> None:
    """Run one worker alone, on the database of the settings."""
    prepared(settings_with(data_dir=data_dir, device=device))
    # Not imported: the service knows nothing of the worker. The same process goes on as one.
    become_module("worker")


for command in (train, generate, score, pull, push, backup, restore, verify, migrate_database):
    cli.command()(command)
for name, group in {"jobs": jobs, "models": models, "corpora": corpora, "keys": keys}.items():
    cli.add_typer(group, name=name)


def main() -> None:
    """The entry point, of people and of `charsmith serve` for its children."""
    if started_by_parent():
        end_with_parent()
        parent_socket().close()  # nothing is said over it; taking it takes our own argument away
    cli(prog_name="charsmith")


if __name__ == "__main__":
    main()
