"""`charsmith jobs`: look at trainings, watch, stop and remove them, as a client of a running service."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from app.calling import Url, address, calling, complete_job, refuse_before_subcommand
from app.client import Client
from app.command import INTERRUPTED
from app.progress_view import view_for
from app.saving import save
from app.terminal import AsJson, Columns, fail, harmless, print_documents, print_json, print_table

jobs = typer.Typer(help="List the jobs, newest first; show, watch, draw, stop and delete them.")

JobId = Annotated[str, typer.Argument(help="Id of a job.", metavar="ID", autocompletion=complete_job)]
Status = Annotated[
    str | None, typer.Option(help="Only jobs that are queued, running, paused, succeeded, failed or cancelled.")
]
COLUMNS: Columns = {
    "id": lambda j: j["id"],
    "name": lambda j: j["name"],
    "status": lambda j: j["status"],
    "done": lambda j: f"{j['progress'].get('fraction') or 0:.0%}",
    "best loss": lambda j: best_loss(j),
    "created": lambda j: j["created_at"][:19],
}


def best_loss(document: dict[str, Any]) -> str:
    """The lowest validation loss of a job or a model, if there is one."""
    best = document["best"]
    return "" if not best or best.get("val_loss") is None else f"{best['val_loss']:.3f}"


@jobs.callback(invoke_without_command=True)
def jobs_(context: typer.Context, status: Status = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the jobs, newest first; show, watch, draw, stop and delete them."""
    refuse_before_subcommand(context, status=status, url=url, as_json=as_json)
    if context.invoked_subcommand is None:
        list_(status, url, as_json)


@jobs.command("list")
def list_(status: Status = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the jobs, newest first."""
    with calling(url) as client:
        rows = list(client.pages("/jobs", **({"status": status} if status else {})))
    print_documents(rows) if as_json else print_table(COLUMNS, rows)


@jobs.command()
def show(job: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Tell where a job stands, and every setting of it."""
    with calling(url) as client:
        document = client.call("GET", address("jobs", job))
    print_json(document) if as_json else print_fields(document)


@jobs.command()
def watch(job: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Show a job's progress and samples until it ends. Ctrl-C leaves the job running."""
    with calling(url) as client:
        end_as(follow(client, job), as_json)


@jobs.command()
def metrics(job: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Print a job's whole history in numbers, as CSV or JSON."""
    path = address("jobs", job, "metrics")
    with calling(url) as client:
        if as_json:
            print_documents(client.call("GET", path)["data"])
        else:
            with client.download(path, params={"format": "csv"}) as response:
                sys.stdout.write(response.read().decode())


@jobs.command()
def loss(
    job: JobId,
    file: Annotated[
        Path | None, typer.Argument(help="File or folder; .svg for a drawing. Default: NAME-loss.png.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="Id of a job to lay over it; once for each.", metavar="ID", autocompletion=complete_job),
    ] = None,
    theme: Annotated[str | None, typer.Option(help="What the picture is looked at on: light or dark.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Save a job's loss curve as a picture, those of other jobs over it if wanted."""
    if file is not None and not file.is_dir() and file.suffix.lower() not in ("", ".png", ".svg"):
        fail(f"{file}: a picture is a .png or a .svg")
    picture = "loss.svg" if file is not None and file.suffix.lower() == ".svg" else "loss.png"
    query = {"compare": compare or [], **({"theme": theme} if theme else {})}
    with calling(url) as client, client.download(address("jobs", job, picture), params=query) as response:
        saved = save(response, file, force=force)
    document = {"file": str(saved), "bytes": saved.stat().st_size}
    print_json(document) if as_json else sys.stdout.write(f"{saved}: {document['bytes']:,} bytes\n")


@jobs.command()
def cancel(job: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """End a job for good; its checkpoints stay."""
    _ask("cancel", job, url, as_json)


@jobs.command()
def pause(job: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Stop a job so that it can go on later from where it was."""
    _ask("pause", job, url, as_json)


@jobs.command()
def resume(job: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Queue a paused job again."""
    _ask("resume", job, url, as_json)


@jobs.command()
def delete(job: JobId, url: Url = None) -> None:
    """Remove a job that does not run, and its history; its model stays. Prints nothing."""
    with calling(url) as client:
        client.call("DELETE", address("jobs", job))


def _ask(what: str, job: str, url: str | None, as_json: bool) -> None:
    with calling(url) as client:
        document = client.call("POST", address("jobs", job, what))
    if as_json:
        print_json(document)
        return
    wish = next((w for w in ("cancel", "pause") if document["status"] == "running" and document[f"{w}_requested"]), "")
    sys.stdout.write(f"{document['id']}  {document['status']}{f', {wish} requested' if wish else ''}\n")


def follow(client: Client, job: str) -> dict[str, Any]:
    """Show a job's progress on standard error until it ends; the job. Raises ClientError.

    Ctrl-C leaves the job running, says so, and ends the command.
    """
    try:
        return show_until_end(client, job, Console(stderr=True))
    except KeyboardInterrupt:
        sys.stderr.write(f"\nthe job goes on; `charsmith jobs watch {job}` shows it, ")
        sys.stderr.write(f"`charsmith jobs cancel {job}` stops it\n")
        raise typer.Exit(INTERRUPTED) from None


def show_until_end(client: Client, job: str, console: Console) -> dict[str, Any]:
    """Show a job's progress until it ends; the job. Raises ClientError."""
    with view_for(console) as view:
        for kind, data in client.follow(job):
            view.show(kind, data)
    document: dict[str, Any] = client.call("GET", address("jobs", job))
    return document


def end_as(document: dict[str, Any], as_json: bool) -> None:
    """Print the job's document if asked for; end with status 1 if it came to no good end."""
    if as_json:
        print_json(document)
    if document["status"] in ("failed", "cancelled"):
        fail(f"{document['status']}: {(document['error'] or {}).get('detail', 'by request')}")


def print_fields(document: dict[str, Any], before: str = "") -> None:
    """A line for each field that is known, those of documents within as `outer.inner`."""
    for name, value in document.items():
        if isinstance(value, dict):
            print_fields(value, f"{before}{name}.")
        elif value is not None:
            sys.stdout.write(f"{before}{name}: {harmless(_one_line(value))}\n")


def _one_line(value: object) -> str:
    return str(value).replace("\n", "\\n")
