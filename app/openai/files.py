"""Files in OpenAI's dialect: the corpora, by another name.

Knows HTTP and the store's functions, no SQL. Invariant: a file's id is its corpus's, so each call here and at
`/corpora` means the same text.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Query, Response, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import Field

from app.errors import invalid, too_large
from app.file_names import name_from
from app.openai.dialect import PREFIX
from app.openai.lists import MOST_ITEMS, After, Item, Limit, ListDocument, list_document, page_document
from app.openapi import body, problems
from app.routes.corpora import download_corpus
from app.routes.dependencies import Configured, CorpusKey, StoredIn, pieces_of
from app.routes.guarded import GuardedRoute
from app.store import corpora
from app.store.corpora import Corpus

router = APIRouter(prefix=PREFIX, tags=["openai"], route_class=GuardedRoute)
uploads = APIRouter(prefix=PREFIX, tags=["openai"], route_class=GuardedRoute)
"""Included apart: these take larger bodies."""

PURPOSE = "fine-tune"
Expiry = Annotated[str | None, Form(alias="expires_after[anchor]", max_length=100)]
ExpirySeconds = Annotated[str | None, Form(alias="expires_after[seconds]", max_length=100)]


class FileDocument(Item):
    """A corpus as a file."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str = Field(description="The corpus's name, with `.txt`.")
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["processed"] = "processed"
    expires_at: None = None
    status_details: None = None


class DeletedDocument(Item):
    """What is gone."""

    object: str
    deleted: Literal[True] = True


def file_document(corpus: Corpus) -> FileDocument:
    """A corpus as it is answered here."""
    created = int(corpus.created_at.timestamp())
    return FileDocument(id=corpus.id, bytes=corpus.bytes, created_at=created, filename=f"{corpus.name}.txt")


@uploads.post("/files", summary="Upload a file", responses=problems(422, 507))
def upload_file(
    database: StoredIn,
    settings: Configured,
    file: Annotated[UploadFile, File(description="A text in UTF-8, as it is: no JSON lines.")],
    purpose: Annotated[Literal["fine-tune"], Form(examples=["fine-tune"])],
    expires_anchor: Expiry = None,
    expires_seconds: ExpirySeconds = None,
) -> FileDocument:
    """Keep a text to train on: a corpus, named after the file. The same bytes again give the first file."""
    if expires_anchor is not None or expires_seconds is not None:
        raise invalid("expires_after", "is not done here: a file stays until it is deleted")
    if (file.size or 0) > settings.max_corpus_bytes:
        raise too_large()
    added = corpora.add_corpus(database, pieces_of(file), name_from(file.filename, "corpus"))
    return file_document(added.corpus)


@router.get("/files", summary="List files", responses=problems(422))
def list_files(
    database: StoredIn,
    limit: Limit = MOST_ITEMS,
    after: After = None,
    order: Annotated[Literal["asc", "desc"], Query(description="By age; `desc`: newest first.")] = "desc",
    purpose: Annotated[str | None, Query(max_length=100, description="All files here are for `fine-tune`.")] = None,
) -> ListDocument[FileDocument]:
    """All corpora."""
    if purpose not in (None, PURPOSE):
        return list_document([], has_more=False)
    page = corpora.list_corpora(database, min(limit, MOST_ITEMS), after, oldest_first=order == "asc")
    return page_document(page, file_document)


@router.get("/files/{key}", summary="Look at a file", responses=problems(404, 422))
def get_file(database: StoredIn, key: CorpusKey) -> FileDocument:
    """A corpus, by id or name."""
    return file_document(corpora.get_corpus(database, key))


@router.get(
    "/files/{key}/content",
    summary="Download a file",
    response_class=StreamingResponse,
    responses=problems(404, 422, 500, ok={200: body("text/plain")}),
)
def download_file(database: StoredIn, key: CorpusKey) -> Response:
    """The text, byte for byte."""
    return download_corpus(database, key)


@router.delete("/files/{key}", summary="Delete a file", responses=problems(404, 409, 422, 507))
def delete_file(database: StoredIn, key: CorpusKey) -> DeletedDocument:
    """Refused while a queued, running or paused job needs it. Models trained on it stay."""
    corpus = corpora.get_corpus(database, key)
    corpora.delete_corpus(database, corpus.id)
    return DeletedDocument(id=corpus.id, object="file")
