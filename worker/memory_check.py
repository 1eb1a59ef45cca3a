"""Whether a claimed job fits into this worker's memory.

Knows the store alone. The service asks too, before it queues a job; but only of the workers that live then.
"""

from typing import Any

from app.store import corpora
from app.store.claims import Claim
from app.store.corpora import Corpus
from app.store.database import Database
from models.config import ModelConfig, TrainingConfig
from models.memory_estimate import memory_bytes, readable


def lack_of_memory(database: Database, claim: Claim, device: str, available: int | None) -> dict[str, Any] | None:
    """The error of a job that needs more than the `available` bytes, by the words of the service's refusal; or None,
    as when nobody knows yet what there is."""
    assert claim.job.corpus_id is not None, "a live job's corpus cannot be deleted"
    corpus = corpora.get_corpus(database, claim.job.corpus_id)
    estimate = least_memory(claim, corpus, device)
    if available is None or estimate <= available:
        return None
    detail = f"training needs about {readable(estimate)} of memory, this worker has {readable(available)}"
    return {"code": "too_much_memory", "detail": detail, "estimate_bytes": estimate, "available_bytes": available}


def least_memory(claim: Claim, corpus: Corpus, device: str) -> int:
    """What the job's training takes at least, in bytes."""
    model, training = ModelConfig.from_dict(claim.job.model), TrainingConfig.from_dict(claim.job.training)
    return memory_bytes(model, training, corpus.vocabulary_size, corpus.characters, device=device)
