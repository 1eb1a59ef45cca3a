"""`charsmith generate` and `charsmith score`: let a model write, and ask it how likely a text is.

Knows no default of the service: an option that is not given is not sent, so that a text which goes on keeps its
settings.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.calling import ModelKey, Url, calling, without_none
from app.client import Client
from app.terminal import AsJson, fail, print_json, write_text


def generate(
    model: ModelKey,
    prompt: Annotated[str, typer.Argument(help="What the text goes on from.")] = "",
    max_characters: Annotated[int | None, typer.Option(help="How much to write. Default: 500.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest character, 1, the default, samples as learned.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k likeliest. Default: 0, from all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the likeliest that make up p. Default: 1.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Drop what is less likely than this share of the likeliest. Default: 0.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1: characters that prompt and text have are less likely.")
    ] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="Above 0: so are those that were written.")] = None,
    frequency_penalty: Annotated[float | None, typer.Option(help="The same, for each time that they were.")] = None,
    allowed_characters: Annotated[str | None, typer.Option(help="Write no characters but these.")] = None,
    forbidden_characters: Annotated[str | None, typer.Option(help="Never write these.")] = None,
    unknown: Annotated[
        str | None, typer.Option(help="refuse or skip: what to do about unknown characters of the prompt.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Texts to write; several are shown when all are done.")] = None,
    continue_from: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="Go on from a `state` that --json told; @FILE reads it from a file."),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Stream what MODEL writes to the terminal; with --json all at once, with its seed and state."""
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
            "n": n,
            "continue_from": continue_from and _state(continue_from),
        }
    )
    with calling(url) as client:
        if as_json:
            print_json(client.generate_document(request))
        elif (n or 1) > 1:
            _print_samples(client.generate_document(request), prompt)
        else:
            print_stream(client, request)


def _state(given: str) -> str:
    """A state may be longer than an argument of a command can be."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--continue-from: {given[1:]}: {error}")


def print_stream(client: Client, request: dict[str, Any]) -> None:
    """Write a generation to standard output as it comes, its prompt before it. Raises ClientError."""
    prompt, begun = request.get("prompt", ""), False
    for text in client.generate(request):
        write_text(text if begun else prompt + text)  # not before: it may be refused
        begun = True
    write_text("\n" if begun else f"{prompt}\n")


def _print_samples(document: dict[str, Any], prompt: str) -> None:
    for sample in document["samples"]:
        write_text(f"--- {sample['index']}\n{prompt}{sample['text']}{sample['held_back']}\n")


def score(
    model: ModelKey,
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.", exists=True, dir_okay=False, readable=True)],
    skip_unknown: Annotated[bool, typer.Option("--skip-unknown", help="Leave out what MODEL does not know.")] = False,
    top: Annotated[
        int | None, typer.Option(help="Tell so many of the likeliest characters at each position, 0 to 20.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Tell how well MODEL predicts the text of FILE."""
    request = {"model": model, "text": _text(file), "unknown": "skip" if skip_unknown else "refuse", "top": top}
    with calling(url) as client:
        scores = client.call("POST", "/score", json=without_none(request))
    if as_json:
        print_json(scores)
        return
    beside = zip(scores.get("text", []), scores["log_probabilities"], scores.get("top", []), strict=False)
    for position, (character, score, likeliest) in enumerate(beside):
        told = "  ".join(f"{one['character']!r} {one['log_probability']:.3f}" for one in likeliest)
        write_text(f"{position:>8}  {character!r:>6} {score:8.3f}  |  {told}\n")
    write_text(
        f"{scores['bits_per_character']:.4f} bits per character, perplexity {scores['perplexity']:.3f} "
        f"({scores['characters']:,} characters, {scores['characters_per_second']:,.0f} a second)\n"
    )


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fail(f"{file} is not UTF-8: byte 0x{error.object[error.start]:02x} at byte {error.start}")
