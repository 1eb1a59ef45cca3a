"""What a worker tells of a running job, each fact in one transaction with its event.

Knows nothing of training but the words of its facts. Invariant: as in claims.py, every write is fenced. What is stored
of a step replaces what an earlier attempt stored of it.
"""

from contextlib import ExitStack
from typing import Any

from sqlalchemy import Connection, Row, select

from app.fault_points import fault_point
from app.store.blobs import Blob, best_effort, discard_blob, drop, keep, remove_blob, remove_dropped, write_blob
from app.store.checkpoints import Checkpoint, insert_checkpoint, retain
from app.store.database import Database
from app.store.events import append_event
from app.store.lease import Claim, held
from app.store.metrics import drop_metrics_after, finite, write_metrics
from app.store.schema import models
from app.store.trained_models import insert_model


def record_started(database: Database, claim: Claim, started: dict[str, Any]) -> None:
    """What was planned stands in the job's progress. No event: the status event of the claim told it."""
    with database.write() as connection:
        _merge_progress(connection, claim, started)
        fault_point("started.recording")
    fault_point("started.recorded")


def record_progress(database: Database, claim: Claim, progress: dict[str, Any]) -> None:
    """The fields of worker.events.Progress: in the job's progress, the metrics of the step, and an event."""
    with database.write() as connection:
        _merge_progress(connection, claim, progress)
        write_metrics(connection, claim.job.id, progress["step"], progress)
        append_event(connection, database.now(), claim.job.id, "progress", progress)
        fault_point("progress.recording")
    fault_point("progress.recorded")


def record_evaluation(database: Database, claim: Claim, step: int, val_loss: float, best: bool) -> None:
    """The validation loss at a step; `best`: lower than every earlier one of this training.

    A training that had to start anew is told to be better only than the best checkpoint that it left behind.
    """
    with database.write() as connection:
        beaten = held(connection, claim).best_val_loss
        best = best and (beaten is None or val_loss < beaten)
        told = {"step": step, "val_loss": finite(val_loss), "best": best}
        _merge_progress(connection, claim, {"val_loss": finite(val_loss)})
        write_metrics(connection, claim.job.id, step, told)
        append_event(connection, database.now(), claim.job.id, "evaluation", told)
        fault_point("evaluation.recording")
    fault_point("evaluation.recorded")


def record_sample(database: Database, claim: Claim, step: int, text: str) -> None:
    """What the network writes at a step."""
    with database.write() as connection:
        held(connection, claim)
        append_event(connection, database.now(), claim.job.id, "sample", {"step": step, "text": text})
    fault_point("sample.recorded")


def record_setback(database: Database, claim: Claim, setback: dict[str, Any]) -> None:
    """The fields of worker.events.Setback: training goes on from `to_step`, and metrics later than that are gone."""
    with database.write() as connection:
        _merge_progress(connection, claim, {"step": setback["to_step"], "setbacks": setback["setbacks"]})
        drop_metrics_after(connection, claim.job.id, setback["to_step"])
        append_event(connection, database.now(), claim.job.id, "setback", setback)


def _merge_progress(connection: Connection, claim: Claim, known: dict[str, Any]) -> None:
    before = held(connection, claim).progress
    held(connection, claim, progress=before | known)


def record_saved(
    database: Database,
    claim: Claim,
    *,
    step: int,
    train_loss: float | None,
    val_loss: float | None,
    checkpoint: bytes | None,
    info: dict[str, Any] | None,
    resume_point: bytes,
) -> Checkpoint | None:
    """The stored checkpoint (None without one). From here on the job goes on from `resume_point`; crashes count anew.

    Which one is best is decided by `val_loss`, over all that the model has; a better one of the same step stays, as
    does one that an unfinished job starts from, and None is returned.

    `info` (vocabulary_size, parameters) is needed with the first checkpoint, which makes the model. Older checkpoints
    go as retention says. Raises LeaseLost; then, or after a crash at any point, nothing new is visible.
    """
    with database.write() as connection:
        held(connection, claim)  # before megabytes are written in vain
    with ExitStack() as unless_named:
        resume_blob = write_blob(database, [resume_point])
        unless_named.callback(discard_blob, database, resume_blob.id)
        file_blob = None if checkpoint is None else write_blob(database, [checkpoint])
        if file_blob is not None:
            unless_named.callback(discard_blob, database, file_blob.id)
        with database.write() as connection:
            replaced = _set_resume_point(database, connection, claim, step, resume_blob)
            stored = None
            if file_blob is not None:
                facts = {"step": step, "train_loss": train_loss, "val_loss": val_loss}
                stored = _add_checkpoint(database, connection, claim, file_blob, info, facts)
            fault_point("checkpoint.naming")
        unless_named.pop_all()
    fault_point("checkpoint.named")
    with best_effort():
        if replaced is not None:
            remove_blob(database, replaced)
            fault_point("checkpoint.replaced")
        if file_blob is not None and stored is None:
            remove_blob(database, file_blob.id)
        remove_dropped(database)
    return stored


def _set_resume_point(database: Database, connection: Connection, claim: Claim, step: int, blob: Blob) -> str | None:
    """The id of the blob that was the resume point before."""
    replaced: str | None = held(connection, claim).resume_blob_id
    keep(connection, blob)
    held(connection, claim, resume_blob_id=blob.id, resume_step=step, crashes=0)
    if replaced is not None:
        drop(database, connection, [replaced])
    return replaced


def _add_checkpoint(
    database: Database,
    connection: Connection,
    claim: Claim,
    blob: Blob,
    info: dict[str, Any] | None,
    facts: dict[str, Any],
) -> Checkpoint | None:
    job = held(connection, claim)
    model_id = _model_of(database, connection, job, info)
    stored = insert_checkpoint(database, connection, model_id, blob, **facts)
    if stored is None:
        return None
    retain(database, connection, model_id)
    told = facts | {"best": stored.best, "model": model_id, "checkpoint": stored.id, "bytes": stored.bytes}
    append_event(connection, database.now(), job.id, "checkpoint", told)
    return stored


def _model_of(database: Database, connection: Connection, job: Row[Any], info: dict[str, Any] | None) -> str:
    model_id = connection.execute(select(models.c.id).where(models.c.job_id == job.id)).scalar()
    if model_id is not None:
        return str(model_id)
    if info is None:
        raise ValueError("the first checkpoint of a job needs the model's vocabulary_size and parameters")
    origin = {"job_id": job.id, "corpus_id": job.corpus_id}
    return insert_model(connection, database.now(), name=job.name, info={**info, "config": job.model}, **origin)
