"""`charsmith models`, `pull` and `push`: look at models, remove them, and move their files."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.calling import ModelKey, Url, WholeModelKey, address, calling, refuse_before_subcommand
from app.job_commands import best_loss, print_fields
from app.saving import save
from app.terminal import AsJson, Columns, print_documents, print_json, print_table

ModelFormat = Literal["safetensors", "onnx"]

models = typer.Typer(help="List the models, newest first; show and delete them.")

COLUMNS: Columns = {
    "id": lambda m: m["id"],
    "name": lambda m: m["name"],
    "cell": lambda m: f"{m['config']['cell']} {m['config']['num_layers']}x{m['config']['hidden_size']}",
    "best loss": lambda m: best_loss(m),
    "created": lambda m: m["created_at"][:19],
}
CHECKPOINT_COLUMNS: Columns = {
    "id": lambda c: c["id"],
    "step": lambda c: c["step"],
    "loss": lambda c: "" if c["val_loss"] is None else f"{c['val_loss']:.3f}",
    "bytes": lambda c: f"{c['bytes']:,}",
    "": lambda c: ", ".join(word for word in ("best", "corrupted") if c[word]),
    "created": lambda c: c["created_at"][:19],
}


@models.callback(invoke_without_command=True)
def models_(context: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """List the models, newest first; show and delete them."""
    refuse_before_subcommand(context, url=url, as_json=as_json)
    if context.invoked_subcommand is None:
        list_(url, as_json)


@models.command("list")
def list_(url: Url = None, as_json: AsJson = False) -> None:
    """List the models, newest first."""
    with calling(url) as client:
        rows = list(client.pages("/models"))
    print_documents(rows) if as_json else print_table(COLUMNS, rows)


@models.command()
def show(model: ModelKey, url: Url = None, as_json: AsJson = False) -> None:
    """Tell a model's network, size and best checkpoint."""
    with calling(url) as client:
        document = client.call("GET", address("models", model))
    print_json(document) if as_json else print_fields(document)


@models.command()
def checkpoints(model: WholeModelKey, url: Url = None, as_json: AsJson = False) -> None:
    """List a model's checkpoints, newest first."""
    with calling(url) as client:
        rows = client.call("GET", address("models", model, "checkpoints"))["data"]
    print_documents(rows) if as_json else print_table(CHECKPOINT_COLUMNS, rows)


@models.command()
def delete(model: WholeModelKey, url: Url = None) -> None:
    """Remove a model and its checkpoints. Prints nothing."""
    with calling(url) as client:
        client.call("DELETE", address("models", model))


def pull(
    model: ModelKey,
    file: Annotated[
        Path | None, typer.Argument(help="File or folder. Default: the name that the service gives.")
    ] = None,
    file_format: Annotated[
        ModelFormat | None,
        typer.Option(
            "--format", help="safetensors, or an ONNX graph that onnxruntime runs. Default: by FILE's ending."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Download a checkpoint of MODEL, the best one or that of name@step, as one file."""
    by_name = "onnx" if file is not None and file.suffix.lower() == ".onnx" else "safetensors"
    path, query = address("models", model, "download"), {"format": file_format or by_name}
    with calling(url) as client, client.download(path, params=query) as response:
        saved = save(response, file, force=force)
    document = {"file": str(saved), "bytes": saved.stat().st_size}
    print_json(document) if as_json else sys.stdout.write(f"{saved}: {document['bytes']:,} bytes\n")


def push(
    file: Annotated[Path, typer.Argument(help="A file as `pull` writes it.", exists=True, dir_okay=False)],
    name: Annotated[str | None, typer.Option(help="Name of the model. Default: by the file's name.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload FILE as a model."""
    with calling(url) as client:
        document = client.push(file, name)
    print_json(document) if as_json else sys.stdout.write(f"{document['id']}  {document['name']}\n")
