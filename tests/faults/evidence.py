"""What a database shows after deaths: that it is whole, and that no job was run twice at once.

Reads alone, with the store's tables. How "twice at once" is seen: a job's events have one order, that of their ids, and
a worker's facts bear the step. Were a second worker writing beside the first, facts would come outside of a running
attempt, or the steps of one attempt would not ascend.
"""

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from sqlalchemy import select

from app.store.blobs import read_blob
from app.store.database import Database
from app.store.events import Event, events_after
from app.store.metrics import read_metrics
from app.store.schema import blob_chunks, blobs, checkpoints, corpora, idempotency_keys, jobs, models

NEXT = {
    "": {"queued"},
    "queued": {"running", "paused", "cancelled"},
    "running": {"queued", "paused", "succeeded", "failed", "cancelled"},
    "paused": {"queued", "cancelled"},
}
"""Which status may follow; written out once more, so that the code's own table is no witness for itself."""


def integrity_faults(database: Database) -> list[str]:
    """What SQLite finds wrong with its file, and rows that name rows which are not there. A server keeps both away."""
    if database.dialect != "sqlite":
        return []
    with database.read() as connection:
        found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        strays = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return [str(line) for line in found if line != "ok"] + [f"stray row: {tuple(row)}" for row in strays]


def orphans(database: Database) -> list[str]:
    """Bytes that no row names, names without bytes, and bytes that are not as many as they should be."""
    with database.read() as connection:
        kept = connection.execute(select(blobs.c.id, blobs.c.stage, blobs.c.bytes)).all()
        sizes: dict[str, int] = {}
        for row in connection.execute(select(blob_chunks.c.blob_id, blob_chunks.c.data)):
            sizes[row.blob_id] = sizes.get(row.blob_id, 0) + len(row.data)
        named = {
            name
            for column in (corpora.c.blob_id, checkpoints.c.blob_id, jobs.c.resume_blob_id)
            for name in connection.execute(select(column)).scalars()
            if name is not None
        }
        empty = connection.execute(select(models.c.id).where(models.c.id.not_in(select(checkpoints.c.model_id))))
        models_without = [f"{model} has no checkpoint" for model in empty.scalars()]
    faults = [f"{row.id} is {row.stage}" for row in kept if row.stage != "kept"]
    faults += [f"{row.id} is named by no row" for row in kept if row.id not in named]
    faults += [
        f"{row.id} has {sizes.get(row.id, 0)} of {row.bytes} bytes" for row in kept if sizes.get(row.id) != row.bytes
    ]
    faults += [f"chunks of {blob_id} have no blob" for blob_id in sizes.keys() - {row.id for row in kept}]
    return faults + models_without


def all_events(database: Database, job_id: str) -> list[Event]:
    """A job's whole history."""
    found: list[Event] = []
    while page := events_after(database, job_id, found[-1].id if found else 0, 1000):
        found += page
    return found


def history_faults(job_id: str, history: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """What in a job's history, as (type, data), tells of two attempts at once, or of an end that was undone."""
    faults: list[str] = []
    steps: dict[str, list[int]] = {}
    status, attempt = "", 0
    for kind, data in history:
        if kind != "status":
            if status != "running":
                faults.append(f"{job_id}: a {kind} while it was {status}")
            if kind == "setback":  # from where training goes on, steps come again
                steps = {}
            elif "step" in data:
                steps.setdefault(kind, []).append(data["step"])
            continue
        if data["status"] not in NEXT.get(status, set()):
            faults.append(f"{job_id}: {data['status']} after {status}")
        expected = attempt + 1 if data["status"] == "running" else attempt
        if data["attempt"] != expected:
            faults.append(f"{job_id}: {data['status']} with attempt {data['attempt']}, not {expected}")
        faults += _steps_that_turn_back(job_id, attempt, steps)
        status, attempt, steps = data["status"], data["attempt"], {}
    return faults + _steps_that_turn_back(job_id, attempt, steps)


def _steps_that_turn_back(job_id: str, attempt: int, steps: dict[str, list[int]]) -> list[str]:
    return [
        f"{job_id}: in attempt {attempt} the {kind} of step {next_} was told after that of step {one}"
        for kind, of_kind in steps.items()
        for one, next_ in pairwise(of_kind)
        if next_ <= one
    ]


def job_faults(database: Database) -> list[str]:
    """Of all jobs: histories that are not one attempt after the other, and keys that made two jobs."""
    with database.read() as connection:
        job_ids = connection.execute(select(jobs.c.id)).scalars().all()
        of_keys = connection.execute(select(idempotency_keys.c.job_id)).scalars().all()
    faults = [f"{job_id} came of two keys" for job_id in {one for one in of_keys if of_keys.count(one) > 1}]
    for job_id in job_ids:
        faults += history_faults(job_id, [(event.type, event.data) for event in all_events(database, job_id)])
    return faults


def contents(database: Database) -> dict[str, Any]:
    """All that people see, by name and without ids and times: equal for lives that did the same."""
    with database.read() as connection:
        texts = {(row.name, row.sha256) for row in connection.execute(select(corpora))}
        trained = connection.execute(select(jobs)).all()
        of_models = connection.execute(
            select(models.c.name, checkpoints).join(checkpoints, checkpoints.c.model_id == models.c.id)
        ).all()
    weights = {(row.name, row.step, row.best, _sha256(database, row.blob_id)) for row in of_models}
    curves = {
        (row.name, row.status, row.best_step, row.best_val_loss): [
            (at.step, at.train_loss, at.val_loss) for at in read_metrics(database, row.id)
        ]
        for row in trained
    }
    told = {
        (row.name, event.type, event.data["step"])
        for row in trained
        for event in all_events(database, row.id)
        if event.type != "status"
    }
    return {"corpora": texts, "jobs": curves, "number of jobs": len(trained), "told": told, "checkpoints": weights}


def _sha256(database: Database, blob_id: str) -> str:
    digest = hashlib.sha256()
    for piece in read_blob(database, blob_id):
        digest.update(piece)
    return digest.hexdigest()
