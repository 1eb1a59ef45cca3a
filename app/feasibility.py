"""Whether a job can work, as far as its settings and the size of its corpus tell.

Knows no HTTP but the problem that it raises, and no SQL. Invariant: what is refused can work on no worker that lives.
"""

from collections.abc import Sequence
from typing import NamedTuple

from app.errors import invalid
from app.store.corpora import Corpus
from app.watch import SeenWorker
from models.config import ModelConfig, TrainingConfig
from models.memory_estimate import available_memory_bytes, memory_bytes, readable


class Place(NamedTuple):
    """Where a job may be trained."""

    device: str
    memory_bytes: int


def places_of(workers: Sequence[SeenWorker]) -> list[Place]:
    """Those of the living workers; this machine, as long as none has told of its own."""
    told = [Place(worker.device, worker.memory_bytes) for worker in workers if worker.memory_bytes is not None]
    return told or [Place("cpu", available_memory_bytes())]


def check_feasible(
    model: ModelConfig, training: TrainingConfig, corpus: Corpus, vocabulary_size: int, places: Sequence[Place]
) -> None:
    """Refuse what cannot work: a corpus too short, a network too large for every place. Raises Problem.

    `vocabulary_size` is the network's, which may know more characters than the corpus has.
    """
    minimum = training.minimum_characters
    if corpus.characters < minimum:
        message = f"has {corpus.characters} characters, training with these settings needs at least {minimum}"
        raise invalid("corpus", message, code="corpus_too_short", minimum_characters=minimum)
    lacking = [_lack(model, training, corpus, vocabulary_size, place) for place in places]
    if all(lack > 0 for lack, _, _ in lacking):
        _, estimate, available = min(lacking)
        message = f"training needs about {readable(estimate)} of memory, there is {readable(available)}"
        raise invalid("model", message, code="too_much_memory", estimate_bytes=estimate, available_bytes=available)


def _lack(
    model: ModelConfig, training: TrainingConfig, corpus: Corpus, vocabulary_size: int, place: Place
) -> tuple[int, int, int]:
    """How many bytes are missing (none: 0 or less), are needed, and are there."""
    needed = memory_bytes(model, training, vocabulary_size, corpus.characters, device=place.device)
    return needed - place.memory_bytes, needed, place.memory_bytes
