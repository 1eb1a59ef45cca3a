"""The command `charsmith`: starts the service, and is a client of a running one.

Knows no torch: what it does to a running service, anyone can do over HTTP. Only `keys` and what keeps the database safe
(app.backup_commands) open it.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from app import logs
from app.backup_commands import backup, restore, verify
from app.client import Client, ClientError, service_url
from app.fault_points import FaultError, arm
from app.key_commands import keys
from app.processes import become_module, end_well_when_asked, end_with_parent, parent_socket, started_by_parent
from app.progress_view import view_for
from app.settings import SettingsError
from app.supervisor import serve as supervise
from app.terminal import AsJson, DataDir, fail, prepared, print_json, print_table, settings_with

cli = typer.Typer(
    help="Train character-level recurrent language models on your texts, and stream what they write.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


cli.add_typer(keys, name="keys")


def _client(url: str | None) -> Client:
    """A client of the service at `url`, or of the one that the settings of this environment start."""
    settings = settings_with()
    return Client(url or service_url(settings.host, settings.port), settings.api_key)


Url = Annotated[
    str | None, typer.Option(help="Address of the running service. Default: by CHARSMITH_HOST and CHARSMITH_PORT.")
]
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


@cli.command()
def train(
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.", exists=True, dir_okay=False, readable=True)],
    name: Annotated[str | None, typer.Option(help="Name of the corpus and of the model.")] = None,
    preset: Annotated[str | None, typer.Option(help="auto, tiny, small, medium or large.")] = None,
    from_checkpoint: Annotated[
        str | None, typer.Option(help="Go on from a model: id, name, or name@step. Brings its own network.")
    ] = None,
    cell: Annotated[str | None, typer.Option(help="rnn_tanh, rnn_relu, gru or lstm.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of a layer.")] = None,
    num_layers: Annotated[int | None, typer.Option(help="Layers.")] = None,
    normalization: Annotated[str | None, typer.Option(help="none, nfc or letters.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget in passes over the text.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in optimizer updates.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the initial weights.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Queue the job and return.")] = False,
    url: Url = None,
) -> None:
    """Upload FILE, train on it, watch it learn. Ctrl-C leaves the job running."""
    client = _client(url)
    model = {"cell": cell, "hidden_size": hidden_size, "num_layers": num_layers, "normalization": normalization}
    training = {"minutes": minutes, "epochs": epochs, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    job: dict[str, Any] = {}
    try:
        corpus = client.upload_path(file, name)
        request = {"corpus": corpus["id"], "name": name, "preset": preset, "from_checkpoint": from_checkpoint}
        job = client.submit(without_none(request | {"model": model, "training": training}))
        sys.stdout.write(f"{job['id']}  {job['name']}\n")
        if from_checkpoint is not None:
            sys.stdout.write(f"from {job['from_checkpoint']}, {job['new_characters']} new characters\n")
        if not detach:
            job = watch(client, job["id"])
    except ClientError as error:
        fail(error)
    except KeyboardInterrupt:
        if job:
            sys.stderr.write(f"\nthe job goes on; stop it with: curl -X POST {client.url}/jobs/{job['id']}/cancel\n")
        raise typer.Exit(130) from None
    if job["status"] in ("failed", "cancelled"):
        fail(f"{job['status']}: {(job['error'] or {}).get('detail', 'by request')}")


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    """A request without what was not given."""
    pruned = {key: without_none(v) if isinstance(v, dict) else v for key, v in values.items()}
    return {key: v for key, v in pruned.items() if v is not None and v != {}}


def watch(client: Client, job_id: str) -> dict[str, Any]:
    """Show a job's progress until it ends; the job. Raises ClientError."""
    with view_for(Console()) as view:
        for kind, data in client.follow(job_id):
            view.show(kind, data)
    job: dict[str, Any] = client.call("GET", f"/jobs/{job_id}")
    return job


@cli.command()
def generate(
    model: Annotated[str, typer.Argument(help="Id or name of a model, or name@step for one checkpoint.")],
    prompt: Annotated[str, typer.Argument(help="What the text goes on from.")] = "",
    max_characters: Annotated[int, typer.Option(help="How much to write.")] = 500,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest character, 1 samples as learned.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample from the k likeliest; 0: from all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest that make up p.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Drop what is less likely than this share of the likeliest.")] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1: characters that prompt and text have are less likely.")
    ] = 1.0,
    presence_penalty: Annotated[float, typer.Option(help="Above 0: so are those that were written.")] = 0.0,
    frequency_penalty: Annotated[float, typer.Option(help="The same, for each time that they were.")] = 0.0,
    allowed_characters: Annotated[str | None, typer.Option(help="Write no characters but these.")] = None,
    forbidden_characters: Annotated[str | None, typer.Option(help="Never write these.")] = None,
    unknown: Annotated[
        str | None, typer.Option(help="refuse or skip: what to do about unknown characters of the prompt.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    url: Url = None,
) -> None:
    """Stream what MODEL writes to the terminal."""
    request = without_none(
        {
            "model": model,
            "prompt": prompt,
            "max_characters": max_characters,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "allowed_characters": allowed_characters,
            "forbidden_characters": forbidden_characters,
            "unknown": unknown,
            "seed": seed,
            "stop": stop,
        }
    )
    try:
        print_stream(_client(url), request)
    except ClientError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@cli.command()
def score(
    model: Annotated[str, typer.Argument(help="Id or name of a model, or name@step for one checkpoint.")],
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.", exists=True, dir_okay=False, readable=True)],
    skip_unknown: Annotated[bool, typer.Option("--skip-unknown", help="Leave out what MODEL does not know.")] = False,
    url: Url = None,
) -> None:
    """Tell how well MODEL predicts the text of FILE."""
    unknown = "skip" if skip_unknown else "refuse"
    try:
        request = {"model": model, "text": file.read_bytes().decode("utf-8-sig"), "unknown": unknown}
        scores = _client(url).call("POST", "/score", json=request)
    except UnicodeDecodeError as error:
        fail(f"{file} is not UTF-8: byte 0x{error.object[error.start]:02x} at byte {error.start}")
    except ClientError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    sys.stdout.write(
        f"{scores['bits_per_character']:.4f} bits per character, perplexity {scores['perplexity']:.3f} "
        f"({scores['characters']:,} characters, {scores['characters_per_second']:,.0f} a second)\n"
    )


def print_stream(client: Client, request: dict[str, Any]) -> None:
    """Write a generation to standard output as it comes, its prompt before it. Raises ClientError."""
    before = request.get("prompt", "")
    for text in client.generate(request):
        sys.stdout.write(before + text)
        sys.stdout.flush()
        before = ""
    sys.stdout.write("\n")


def _print_list(url: str | None, path: str, columns: dict[str, Any], as_json: bool) -> None:
    try:
        rows = list(_client(url).pages(path))
    except ClientError as error:
        fail(error)
    print_json(rows) if as_json else print_table(columns, rows)


def _loss(best: dict[str, Any] | None) -> str:
    return "" if not best or best.get("val_loss") is None else f"{best['val_loss']:.3f}"


@cli.command()
def jobs(url: Url = None, as_json: AsJson = False) -> None:
    """List the jobs, newest first."""
    columns = {
        "id": lambda j: j["id"],
        "name": lambda j: j["name"],
        "status": lambda j: j["status"],
        "done": lambda j: f"{j['progress'].get('fraction') or 0:.0%}",
        "best loss": lambda j: _loss(j["best"]),
        "created": lambda j: j["created_at"][:19],
    }
    _print_list(url, "/jobs", columns, as_json)


@cli.command()
def models(url: Url = None, as_json: AsJson = False) -> None:
    """List the models, newest first."""
    columns = {
        "id": lambda m: m["id"],
        "name": lambda m: m["name"],
        "cell": lambda m: f"{m['config']['cell']} {m['config']['num_layers']}x{m['config']['hidden_size']}",
        "best loss": lambda m: _loss(m["best"]),
        "created": lambda m: m["created_at"][:19],
    }
    _print_list(url, "/models", columns, as_json)


for command in (backup, restore, verify):
    cli.command()(command)


def main() -> None:
    """The entry point, of people and of `charsmith serve` for its children."""
    if started_by_parent():
        end_with_parent()
        parent_socket().close()  # nothing is said over it; taking it takes our own argument away
    cli()


if __name__ == "__main__":
    main()
