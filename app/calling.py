"""What the commands that call a running service share: its address, how they end, and what a shell completes.

Knows no command. Invariant: a refusal of the service ends a command with status 1 and its own words; Ctrl-C with 130.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.client import Client, ClientError, service_url
from app.command import INTERRUPTED
from app.settings import SettingsError, load_settings
from app.terminal import fail, settings_with

COMPLETION_SECONDS = 1.0
"""A shell that waits longer for its Tab key seems hung."""

Url = Annotated[
    str | None, typer.Option(help="Address of the running service. Default: by CHARSMITH_HOST and CHARSMITH_PORT.")
]


@contextmanager
def calling(url: str | None) -> Iterator[Client]:
    """A client of the service at `url`, or of the one that the settings of this environment start."""
    settings = settings_with()
    with closing(Client(url or service_url(settings.host, settings.port), settings.api_key)) as client:
        try:
            yield client
        except ClientError as error:
            fail(error)
        except OSError as error:  # of files: the client makes its own errors of the network's
            if isinstance(error, BrokenPipeError):
                raise
            fail(error)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def address(*parts: str) -> str:
    """A path of the service; what a person typed is one part of it, whatever characters it has."""
    return "".join(f"/{quote(part, safe='@')}" for part in parts)


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    """A request without what was not given."""
    pruned = {key: without_none(v) if isinstance(v, dict) else v for key, v in values.items()}
    return {key: v for key, v in pruned.items() if v is not None and v != {}}


def refuse_before_subcommand(context: typer.Context, **options: object) -> None:
    """Raises UsageError if an option stands where it would be passed over."""
    if context.invoked_subcommand is not None and any(options.values()):
        raise typer.BadParameter(f"options go behind `{context.command_path} {context.invoked_subcommand}`")


def _completed(path: str, fields: tuple[str, ...]) -> Callable[[typer.Context, str], list[str]]:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        """Fails silently: there is no place for a message between what a person types."""
        try:
            settings = load_settings()
            url = ctx.params.get("url") or service_url(settings.host, settings.port)
            with closing(Client(url, settings.api_key, seconds=COMPLETION_SECONDS)) as client:
                listed = client.call("GET", path, params={"limit": 100})["data"]
        except (ClientError, SettingsError):
            return []
        found = dict.fromkeys(one[field] for field in fields for one in listed)
        return [value for value in found if value.startswith(incomplete)]

    return complete


complete_model = _completed("/models", ("name", "id"))
complete_job = _completed("/jobs", ("name", "id"))
complete_corpus = _completed("/corpora", ("name", "id"))

WholeModelKey = Annotated[
    str, typer.Argument(help="Id or name of a model.", metavar="MODEL", autocompletion=complete_model)
]
ModelKey = Annotated[
    str,
    typer.Argument(help="Id or name of a model, or name@step for one checkpoint.", autocompletion=complete_model),
]
