"""What routes ask for: the app's own database, settings and generation, and the parameters that all lists share.

Invariant: nothing is global; everything comes from the state of the app that serves the request.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request, UploadFile

from app.generation.streams import Generation, Holder
from app.schemas import Digits
from app.settings import Settings
from app.store.api_keys import ApiKey
from app.store.database import Database
from app.watch import Watch

PIECE_BYTES = 1024 * 1024


# `async`, although nothing is awaited: FastAPI sends plain functions to a thread.
async def _database(request: Request) -> Database:
    return cast(Database, request.app.state.database)


async def _settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


async def _generation(request: Request) -> Generation:
    return cast(Generation, request.app.state.generation)


async def _watch(request: Request) -> Watch:
    return cast(Watch, request.app.state.watch)


async def _caller(request: Request) -> ApiKey | None:
    return cast(ApiKey | None, request.state.key)


StoredIn = Annotated[Database, Depends(_database)]
Configured = Annotated[Settings, Depends(_settings)]
Generating = Annotated[Generation, Depends(_generation)]
Watching = Annotated[Watch, Depends(_watch)]
Caller = Annotated[ApiKey | None, Depends(_caller)]
"""The API key of the request; None where none is asked for."""

# `Digits` last: before the bounds it would take them out of the document.
Limit = Annotated[int, Query(ge=1, le=100, description="Items on a page."), Digits]
After = Annotated[str | None, Query(max_length=100, description="The `next` of the page before.")]
CorpusKey = Annotated[
    str, Path(description="Id or name of a corpus; a name means its newest.", examples=["shakespeare"])
]
ModelKey = Annotated[str, Path(description="Id or name of a model; a name means its newest.", examples=["shakespeare"])]
CheckpointKey = Annotated[
    str, Path(description="Id or name of a model, or `name@step` for one checkpoint.", examples=["shakespeare"])
]
JobKey = Annotated[str, Path(description="Id or name of a job; a name means its newest.", examples=["shakespeare"])]


def holder_of(key: ApiKey | None) -> Holder | None:
    """Whose streams a key's are."""
    return None if key is None else Holder(key.id, key.max_streams)


def pieces_of(file: UploadFile) -> Iterator[bytes]:
    """An uploaded file from its beginning, in pieces. Blocks: for threads only."""
    file.file.seek(0)
    return iter(lambda: file.file.read(PIECE_BYTES), b"")


def begun(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces, the first one already read: what is wrong then is still told by a status."""
    iterator = iter(pieces)
    first = next(iterator, b"")
    return chain((first,), iterator)
