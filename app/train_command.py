"""`charsmith train`: upload a text, queue a training, watch it learn.

Knows no setting's range: what is wrong with one, the service says.
"""

import json
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from app.calling import Url, calling, complete_model, without_none
from app.client import Client, ClientError
from app.corpus_commands import tell_notice
from app.job_commands import end_as, follow
from app.terminal import AsJson, print_json

SECTIONS = ("model", "training")


def train(
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.", exists=True, dir_okay=False, readable=True)],
    name: Annotated[str | None, typer.Option(help="Name of the corpus and of the model.")] = None,
    preset: Annotated[str | None, typer.Option(help="auto, tiny, small, medium or large.")] = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Go on from a model: id, name, or name@step. Brings its own network.", autocompletion=complete_model
        ),
    ] = None,
    cell: Annotated[str | None, typer.Option(help="rnn_tanh, rnn_relu, gru or lstm.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of a layer.")] = None,
    num_layers: Annotated[int | None, typer.Option(help="Layers.")] = None,
    embedding_size: Annotated[int | None, typer.Option(help="Width of a character's vector.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of values zeroed in training.")] = None,
    normalization: Annotated[str | None, typer.Option(help="none, nfc or letters.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget in passes over the text.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in optimizer updates.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lanes that read the text side by side.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Characters that gradients flow back through.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Evaluations without a better loss before training ends early.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the initial weights.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Any other setting of the service, as training.weight_decay=0.01 or model.dropout=0; may be repeated, "
            "and goes before an option of the same name.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Watch the job, or queue it and return.")] = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload FILE, train on it, watch it learn. Ctrl-C leaves the job running."""
    request: dict[str, Any] = {
        "name": name,
        "preset": preset,
        "from_checkpoint": from_checkpoint,
        "model": {
            "cell": cell,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "embedding_size": embedding_size,
            "dropout": dropout,
            "normalization": normalization,
        },
        "training": {
            "minutes": minutes,
            "epochs": epochs,
            "steps": steps,
            "batch_size": batch_size,
            "sequence_length": sequence_length,
            "learning_rate": learning_rate,
            "patience": patience,
            "seed": seed,
        },
    }
    for setting in set_ or []:
        section, key, value = parse_setting(setting)
        request[section][key] = value
    for setting, number in {**request["model"], **request["training"]}.items():
        if isinstance(number, float) and not math.isfinite(number):  # JSON has no word for it
            raise typer.BadParameter(
                f"{number} is no number to train with", param_hint=f"--{setting.replace('_', '-')}"
            )
    with calling(url) as client:
        corpus = client.upload_path(file, name)
        tell_notice(corpus)
        job = client.submit(without_none(request | {"corpus": corpus["id"]}))
        if not as_json:
            _tell(job)
        tell_where_nobody_works(client)
        if wait:
            end_as(follow(client, job["id"]), as_json)
        elif as_json:
            print_json(job)


def tell_where_nobody_works(client: Client) -> None:
    """On standard error, if no worker is there: the job would wait without a word."""
    with suppress(ClientError):  # not ready at this moment: the job is queued all the same
        if client.call("GET", "/readyz")["workers"] != []:
            return
        sys.stderr.write("No worker is there to train it; `charsmith worker` starts one.\n")


def parse_setting(setting: str) -> tuple[str, str, Any]:
    """Section, key and value of `section.key=value`; what is no JSON is a word. Raises BadParameter."""
    path, equals, text = setting.partition("=")
    section, dot, key = path.partition(".")
    if not equals or not dot or not key or section not in SECTIONS:
        raise typer.BadParameter(f"{setting!r} is not model.KEY=VALUE or training.KEY=VALUE", param_hint="--set")
    try:
        return section, key, json.loads(text)
    except ValueError:
        return section, key, text


def _tell(job: dict[str, Any]) -> None:
    sys.stdout.write(f"{job['id']}  {job['name']}\n")
    if job["from_checkpoint"] is not None:
        sys.stdout.write(f"from {job['from_checkpoint']}, {job['new_characters']} new characters\n")
    sys.stdout.flush()  # before what is shown of it on standard error
