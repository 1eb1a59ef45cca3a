"""All that a training child needs, gathered from the store.

Knows no torch and no SQL. Invariant: a text is written out piece by piece, never held; what cannot be had although a
later attempt would find no more of it is a refusal, and only that.
"""

import traceback
from collections.abc import Callable
from pathlib import Path

from app.store import claims, corpora, trained_models
from app.store.claims import Claim
from app.store.database import Database
from app.store.errors import Corrupted, NotFound
from worker.launch import TrainingFailed, TrainingRefusal, TrainingTask
from worker.memory_check import least_memory


class Interrupted(Exception):
    """The job is wanted to end before its training has begun."""


def prepare(
    database: Database,
    claim: Claim,
    folder: Path,
    compiled: Path,
    *,
    device: str,
    threads: int,
    in_vain: Callable[[], bool] = lambda: False,
) -> TrainingTask:
    """The task of an attempt, its corpus in a file of `folder`.

    Raises TrainingFailed, LeaseLost; Interrupted once it is `in_vain`: a large text takes longer than a program that
    was asked to end has time.
    """
    assert claim.job.corpus_id is not None, "a live job's corpus cannot be deleted"
    corpus = corpora.get_corpus(database, claim.job.corpus_id)
    memory_bytes = least_memory(claim, corpus, device)
    text_path = folder / "corpus.txt"
    with text_path.open("wb") as file:
        for piece in corpora.read_corpus(database, corpus):
            file.write(piece)
            if in_vain():
                raise Interrupted
    resume_point = claims.read_resume_point(database, claim)
    if resume_point is not None:  # it keeps its threads: an executor that shares cores out must know
        threads = claim.job.progress.get("threads") or threads
    return TrainingTask(
        model=claim.job.model,
        training=claim.job.training,
        text_path=str(text_path),
        folder=str(folder),
        compiled=str(compiled),
        corpus_sha256=corpus.sha256,
        device=device,
        threads=threads,
        resume_point=resume_point,
        from_checkpoint=_read_checkpoint(database, claim.job.from_checkpoint),
        request_id=claim.job.request_id or "",
        memory_bytes=memory_bytes,
    )


def _read_checkpoint(database: Database, reference: str | None) -> bytes | None:
    """The file of the checkpoint that a job starts from, as it was queued. Raises TrainingFailed if it is damaged."""
    if reference is None:
        return None
    try:
        _, checkpoint = trained_models.find_checkpoint(database, reference)
        try:
            return b"".join(trained_models.read_checkpoint(database, checkpoint))
        except Corrupted:
            trained_models.quarantine(database, checkpoint)
            raise
    except (Corrupted, NotFound) as error:
        detail = f"the checkpoint {reference}, from which the job starts, is damaged or gone: {error}"
        raise TrainingFailed(TrainingRefusal("checkpoint_unusable", detail, traceback.format_exc())) from error
