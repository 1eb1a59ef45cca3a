"""Calls for corpora: upload, look, read back, delete.

Knows HTTP and the store's functions, no SQL. Invariant: a text comes back byte for byte (but for a byte order mark,
which is dropped), and no more than a few pieces of it are in memory at a time.
"""

from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import StreamingResponse

from app.documents import (
    CorpusDocument,
    ListDocument,
    UploadedCorpusDocument,
    corpus_document,
    page_document,
    uploaded_document,
)
from app.errors import too_large
from app.file_names import name_from
from app.openapi import body, problems
from app.routes.dependencies import After, Configured, CorpusKey, Limit, StoredIn, begun, pieces_of
from app.routes.guarded import GuardedRoute
from app.store import corpora

router = APIRouter(tags=["corpora"], route_class=GuardedRoute)
uploads = APIRouter(tags=["corpora"], route_class=GuardedRoute)
"""Included apart: these take larger bodies."""


@uploads.post(
    "/corpora",
    status_code=201,
    summary="Upload a text",
    responses=problems(
        422,
        507,
        ok={200: {"model": UploadedCorpusDocument, "description": "These bytes were here already: the first corpus."}},
    ),
)
def upload_corpus(
    database: StoredIn,
    settings: Configured,
    response: Response,
    file: Annotated[UploadFile, File(description="A text in UTF-8. Line endings are kept.")],
    name: Annotated[
        str | None,
        Form(
            description="1 to 64 of letters, digits, `.`, `_`, `-`. Default: made from the file's name.",
            max_length=1000,
            examples=["shakespeare"],
        ),
    ] = None,
) -> UploadedCorpusDocument:
    """Keep a text to train on. A byte order mark is dropped, and the answer says so. The same bytes again give the
    first corpus, with 200 and its first name: if another one was asked for, `notice` says that it was not taken."""
    if (file.size or 0) > settings.max_corpus_bytes:
        raise too_large()
    name = name or name_from(file.filename, "corpus")
    added = corpora.add_corpus(database, pieces_of(file), name)
    if not added.is_new:
        response.status_code = 200
    response.headers["Location"] = f"/corpora/{added.corpus.id}"
    return uploaded_document(added, name)


@router.get("/corpora", summary="List corpora", responses=problems(422))
def list_corpora(database: StoredIn, limit: Limit = 20, after: After = None) -> ListDocument[CorpusDocument]:
    """All texts, newest first."""
    return page_document(corpora.list_corpora(database, limit, after), corpus_document)


@router.get("/corpora/{key}", summary="Look at a corpus", responses=problems(404, 422))
def get_corpus(database: StoredIn, key: CorpusKey) -> CorpusDocument:
    """Its size, its vocabulary's size, and how it begins."""
    return corpus_document(corpora.get_corpus(database, key))


@router.delete(
    "/corpora/{key}",
    status_code=204,
    response_class=Response,
    summary="Delete a corpus",
    responses=problems(404, 409, 422, 507),
)
def delete_corpus(database: StoredIn, key: CorpusKey) -> None:
    """Refused with 409 while a queued, running or paused job needs it. Models trained on it stay."""
    corpora.delete_corpus(database, key)


@router.get(
    "/corpora/{key}/text",
    summary="Download a corpus",
    response_class=StreamingResponse,
    responses=problems(404, 422, 500, ok={200: body("text/plain")}),
)
def download_corpus(database: StoredIn, key: CorpusKey) -> Response:
    """The text, byte for byte."""
    corpus = corpora.get_corpus(database, key)
    headers = {
        # An attachment: Swagger UI hangs on large bodies that it tries to show.
        "Content-Disposition": f'attachment; filename="{corpus.name}.txt"',
        "Content-Length": str(corpus.bytes),
    }
    pieces = begun(corpora.read_corpus(database, corpus))
    return StreamingResponse(pieces, media_type="text/plain; charset=utf-8", headers=headers)
