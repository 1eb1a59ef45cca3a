"""Calls for models: look, download, upload, delete.

Knows HTTP, the store's functions and the torch-free reader of checkpoint headers. Invariant: an uploaded file becomes a
model only after its header was checked here and its numbers in the generation process.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.documents import (
    CheckpointsDocument,
    ListDocument,
    ModelDocument,
    checkpoints_document,
    model_document,
    page_document,
)
from app.errors import invalid, refusal, too_large
from app.file_names import name_from
from app.generation.streams import Generation, GenerationRefused
from app.openapi import body, problems
from app.routes.dependencies import (
    After,
    CheckpointKey,
    Configured,
    Generating,
    Limit,
    ModelKey,
    StoredIn,
    begun,
    pieces_of,
)
from app.routes.guarded import GuardedRoute
from app.store import blobs, trained_models
from app.store.database import Database
from app.store.errors import Corrupted
from app.store.names import check_name
from app.store.trained_models import Checkpoint
from models.checkpoint_header import CheckpointInfo, InvalidCheckpoint, header_bytes, may_be_onnx, read_info

router = APIRouter(tags=["models"], route_class=GuardedRoute)
uploads = APIRouter(tags=["models"], route_class=GuardedRoute)
"""Included apart: these take larger bodies."""

FILE = "application/octet-stream"
ModelFormat = Literal["safetensors", "onnx"]


@router.get("/models", summary="List models", responses=problems(422))
def list_models(database: StoredIn, limit: Limit = 20, after: After = None) -> ListDocument[ModelDocument]:
    """All models, newest first."""
    return page_document(trained_models.list_models(database, limit, after), model_document)


@uploads.post("/models", status_code=201, summary="Upload a model", responses=problems(422, 503, 507))
async def upload_model(
    request: Request,
    database: StoredIn,
    settings: Configured,
    generation: Generating,
    response: Response,
    file: Annotated[
        UploadFile, File(description="A file as `GET /models/{key}/download` gives it, safetensors or ONNX.")
    ],
    name: Annotated[
        str | None,
        Form(description="Default: made from the file's name.", max_length=1000, examples=["shakespeare-copy"]),
    ] = None,
) -> ModelDocument:
    """Take a model that was trained elsewhere. The file is checked, and nothing in it is ever run."""
    if (file.size or 0) > settings.max_model_bytes:
        raise too_large()
    name = check_name(name or name_from(file.filename, "model"))
    async with request.app.state.one_header:
        info, pieces = await run_in_threadpool(_read_header, file)
    blob = await run_in_threadpool(blobs.write_blob, database, pieces)
    try:
        await _inspect(generation, blob.id)
        model = await run_in_threadpool(trained_models.add_model, database, blob, name, _described(info))
    except BaseException:
        await run_in_threadpool(blobs.discard_blob, database, blob.id)
        raise
    response.headers["Location"] = f"/models/{model.id}"
    return model_document(model)


async def _inspect(generation: Generation, blob_id: str) -> None:
    """Return if the file's numbers are a network's. Raises Problem, GenerationUnavailable."""
    try:
        await generation.inspect(blob_id)
    except GenerationRefused as error:
        raise refusal(error, "file") from None


def _read_header(file: UploadFile) -> tuple[CheckpointInfo, Iterator[bytes]]:
    """What the file says about itself, and the checkpoint file that is stored. Raises InvalidCheckpoint."""
    start = file.file.read(8)
    if may_be_onnx(start):
        from models.onnx_file import checkpoint_of_onnx  # the onnx package is 13 MB of memory that few need

        return checkpoint_of_onnx(file.file)
    return read_info(start + file.file.read(header_bytes(start) - 8), file_bytes=file.size), pieces_of(file)


def _described(info: CheckpointInfo) -> dict[str, Any]:
    return {
        "config": info.config.as_dict(),
        "vocabulary_size": len(info.vocabulary),
        "parameters": info.config.parameter_count(len(info.vocabulary)),
        "step": info.step,
        "train_loss": info.train_loss,
        "val_loss": info.val_loss,
    }


@router.get("/models/{key}", summary="Look at a model", responses=problems(404, 422))
def get_model(database: StoredIn, key: CheckpointKey) -> ModelDocument:
    """Its network, its size, its best checkpoint. With `name@step`, only if it has that checkpoint."""
    if "@" in key:
        return model_document(trained_models.find_checkpoint(database, key)[0])
    return model_document(trained_models.get_model(database, key))


@router.delete(
    "/models/{key}",
    status_code=204,
    response_class=Response,
    summary="Delete a model",
    responses=problems(404, 409, 422, 507),
)
def delete_model(database: StoredIn, key: ModelKey) -> None:
    """Remove a model and its checkpoints. 409 while its job is not finished."""
    trained_models.delete_model(database, key)


@router.get("/models/{key}/checkpoints", summary="List a model's checkpoints", responses=problems(404, 422))
def list_checkpoints(database: StoredIn, key: ModelKey) -> CheckpointsDocument:
    """The best one and the newest ones, newest first. Use one as `name@step`."""
    return checkpoints_document(trained_models.list_checkpoints(database, key))


@router.get(
    "/models/{key}/download",
    summary="Download a model",
    response_class=StreamingResponse,
    responses=problems(404, 422, 500, ok={200: body(FILE, binary=True)}),
)
def download_model(
    database: StoredIn,
    key: CheckpointKey,
    format: Annotated[
        ModelFormat, Query(description="Or as an ONNX graph of one step, which `onnxruntime` and others run.")
    ] = "safetensors",
) -> Response:
    """The best checkpoint, or the one of `name@step`, as one safetensors file that holds everything."""
    model, checkpoint = trained_models.find_checkpoint(database, key)
    size, pieces = checkpoint.bytes, _read(database, checkpoint)
    if format == "onnx":
        size, pieces = _as_onnx(pieces)
    headers = {
        "Content-Disposition": f'attachment; filename="{model.name}-{checkpoint.step}.{format}"',
        "Content-Length": str(size),
    }
    return StreamingResponse(begun(pieces), media_type=FILE, headers=headers)


def _as_onnx(pieces: Iterator[bytes]) -> tuple[int, Iterator[bytes]]:
    """How many bytes the ONNX file has, and the bytes."""
    from models.onnx_file import TooLargeForOnnx, onnx_of_checkpoint  # the onnx package is 13 MB that few need

    try:
        return onnx_of_checkpoint(pieces)
    except TooLargeForOnnx as error:
        raise invalid("format", str(error)) from None
    except InvalidCheckpoint:
        for _ in pieces:  # stored was a valid one: it is damaged, which is known at the end
            pass
        raise


def _read(database: Database, checkpoint: Checkpoint) -> Iterator[bytes]:
    """The file. If it turns out damaged it breaks off, shorter than announced, and is never given out again."""
    try:
        yield from trained_models.read_checkpoint(database, checkpoint)
    except Corrupted:
        trained_models.quarantine(database, checkpoint)
        raise
