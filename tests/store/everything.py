"""A database in which there is some of everything, of the odd and the broken too."""

import random
import sys
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert

from app.store import api_keys, claims, corpora, jobs, trained_models, workers
from app.store.counters import highest_given
from app.store.job_state import JobStatus
from app.store.schema import CHUNK_BYTES, blob_chunks, blobs, events, metrics
from app.store.secret_keys import secret_key
from tests.databases import damage
from tests.store.conftest import Scene

RESUME_POINT = random.Random(1).randbytes(2 * CHUNK_BYTES + 17)
UNUSUAL = (
    "e\u0301 \u00e9 \u202eright\u202c \U0001f469\u200d\U0001f680 \U0010ffff \u0130\u0131\u00df \ue000 \ufeff\ufffd"
    "' \" \\ \r\n\t\x01\x7f"
)
DEEP: Any = {"list": [None, True, 0, -1, 2**62, 1e-320, {"": []}], "text": UNUSUAL, "long": "\U0001f600" * 100_000}
FLOATS = (0.1, 1 / 3, 5e-324, -sys.float_info.max, sys.float_info.epsilon, 1e300, 2.0, -0.0)


def fill(scene: Scene) -> dict[str, Any]:
    """The ids of what tests ask for again."""
    scene.corpus("gone", "this text is gone\n")
    corpora.delete_corpus(scene.database, "gone")
    scene.corpus("unusual", f"{UNUSUAL}\n" * 3 + "".join(map(chr, range(0x4E00, 0x9000))))
    large = bytes(random.Random(2).choices(b"abcdefgh \n", k=CHUNK_BYTES + 1))
    corpora.add_corpus(scene.database, [large], "large")
    workers.announce(scene.database, "worker-1", "cpu", memory_bytes=2**40)
    secret_key(scene.database, "states")
    api_keys.create_key(scene.database, "laptop", frozenset(api_keys.Scope))
    api_keys.create_key(scene.database, "old", frozenset({api_keys.Scope.READ}), max_streams=3)
    api_keys.revoke_key(scene.database, "old")
    made = _jobs(scene)
    _by_hand(scene, made["succeeded"])
    return made


def _jobs(scene: Scene) -> dict[str, Any]:
    """A job of each status, by its status."""
    database, made = scene.database, {}
    for status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.RUNNING):
        scene.clock.jump(seconds=1.234567)
        claim = scene.running(name=status.value)
        made[status.value] = claim.job.id
        _train(scene, claim)
        if status is JobStatus.FAILED:
            claims.finish(database, claim, status, {"code": "broken", "detail": UNUSUAL})
        elif status is JobStatus.PAUSED:
            claims.release(database, claim, pause=True)
        elif status is not JobStatus.RUNNING:
            claims.finish(database, claim, status)
    made["queued"] = scene.job(name="queued", idempotency=("key \u00e9", "1" * 64), request_id="r-1").id
    jobs.enqueue_planned(
        database, scene.corpus().id, lambda _: jobs.Order("noted", DEEP, DEEP, metadata={"a": UNUSUAL}), key_id="key_1"
    )
    gone = scene.job(name="gone").id
    jobs.cancel_job(database, gone)
    jobs.delete_job(database, gone)
    return made


def _train(scene: Scene, claim: claims.Claim) -> None:
    claims.record_progress(scene.database, claim, {"step": 1, "train_loss": 1 / 3, "epoch": 0.1, "val_loss": None})
    claims.record_sample(scene.database, claim, 1, UNUSUAL)
    checkpoint = random.Random(claim.job.id).randbytes(CHUNK_BYTES)
    scene.save(claim, 1, val_loss=2.5, checkpoint=checkpoint)
    scene.save(claim, 2, val_loss=1.5, resume_point=RESUME_POINT)


def _by_hand(scene: Scene, job_id: str) -> None:
    """What the service would take hours for, or does not do: many rows, extreme numbers, damage, half a blob."""
    at = [datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC)]
    rows = [{"job_id": job_id, "step": 10 + n, "seconds": FLOATS[n % len(FLOATS)]} for n in range(1500)]
    told = [
        {"job_id": job_id, "type": "sample", "data": DEEP if n < 2 else [n], "created_at": at[n % 2]}
        for n in range(600)
    ]
    with scene.database.write() as connection:
        connection.execute(insert(metrics), rows)
        connection.execute(insert(events), told)
        last = highest_given(connection)["events"]
        connection.execute(delete(events).where(events.c.id.between(last - 10, last)))
        half = {"id": "blob_half", "stage": "writing", "bytes": 1, "sha256": None, "touched_at": at[1]}
        connection.execute(insert(blobs), half)
        connection.execute(insert(blob_chunks).values(blob_id="blob_half", chunk_index=3, data=b"\0"))
        connection.execute(
            insert(blobs), half | {"id": "blob_empty", "stage": "written", "bytes": 0, "sha256": "0" * 64}
        )


def damage_some(scene: Scene) -> tuple[str, str]:
    """The ids of a checkpoint known to be damaged, and of one of which nobody knows."""
    known, unknown = (trained_models.find_checkpoint(scene.database, name)[1] for name in ("succeeded@2", "failed@2"))
    for checkpoint in (known, unknown):
        damage(scene.database, checkpoint.blob_id, b"other bytes")
    trained_models.quarantine(scene.database, known)
    return known.id, unknown.id


def all_of(scene: Scene) -> dict[str, Any]:
    """Every row, and what was counted."""
    with scene.database.read() as connection:
        counted = highest_given(connection)
    rows = {name: sorted(repr([*map(_plain, row)]) for row in table) for name, table in scene.dump().items()}
    return rows | {"counted": counted}


def _plain(value: Any) -> Any:
    """A time is of a class for its zone, which is the driver's."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
