"""`charsmith corpora`: upload texts, look at them, get them back, remove them."""

import codecs
import sys
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from app.calling import Url, address, calling, complete_corpus, refuse_before_subcommand
from app.job_commands import print_fields
from app.saving import save
from app.terminal import AsJson, Columns, harmless, print_documents, print_json, print_table, write_text

corpora = typer.Typer(help="List the corpora, newest first; upload, show, get and delete them.")

CorpusKey = Annotated[
    str, typer.Argument(help="Id or name of a corpus.", metavar="CORPUS", autocompletion=complete_corpus)
]
COLUMNS: Columns = {
    "id": lambda c: c["id"],
    "name": lambda c: c["name"],
    "characters": lambda c: f"{c['characters']:,}",
    "different": lambda c: f"{c['vocabulary_size']:,}",
    "created": lambda c: c["created_at"][:19],
}


@corpora.callback(invoke_without_command=True)
def corpora_(context: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """List the corpora, newest first; upload, show, get and delete them."""
    refuse_before_subcommand(context, url=url, as_json=as_json)
    if context.invoked_subcommand is None:
        list_(url, as_json)


@corpora.command("list")
def list_(url: Url = None, as_json: AsJson = False) -> None:
    """List the corpora, newest first."""
    with calling(url) as client:
        rows = list(client.pages("/corpora"))
    print_documents(rows) if as_json else print_table(COLUMNS, rows)


@corpora.command()
def add(
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.", exists=True, dir_okay=False, readable=True)],
    name: Annotated[str | None, typer.Option(help="Name of the corpus. Default: by the file's name.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload FILE, to train on it later."""
    with calling(url) as client:
        document = client.upload_path(file, name)
    tell_notice(document)
    print_json(document) if as_json else sys.stdout.write(f"{document['id']}  {document['name']}\n")


def tell_notice(document: dict[str, Any]) -> None:
    """What the service remarks on an upload, on standard error."""
    if document.get("notice"):
        sys.stderr.write(f"{harmless(document['notice'])}\n")


@corpora.command()
def show(corpus: CorpusKey, url: Url = None, as_json: AsJson = False) -> None:
    """Tell a corpus's size, the size of its vocabulary, and how it begins."""
    with calling(url) as client:
        document = client.call("GET", address("corpora", corpus))
    print_json(document) if as_json else print_fields(document)


@corpora.command()
def get(
    corpus: CorpusKey,
    file: Annotated[Path | None, typer.Argument(help="File or folder. Default: standard output.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    url: Url = None,
) -> None:
    """Give the text back, byte for byte; on a terminal control characters are spelled out."""
    with calling(url) as client, client.download(address("corpora", corpus, "text")) as response:
        if file is None:
            _print_text(response)
        else:
            save(response, file, force=force)


def _print_text(response: httpx.Response) -> None:
    if not sys.stdout.isatty():
        for piece in response.iter_raw():
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in response.iter_raw():
        write_text(decoder.decode(piece))


@corpora.command()
def delete(corpus: CorpusKey, url: Url = None) -> None:
    """Remove a corpus that no unfinished job needs; models trained on it stay. Prints nothing."""
    with calling(url) as client:
        client.call("DELETE", address("corpora", corpus))
