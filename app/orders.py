"""From a request to the order of a job: every setting resolved, and refused what cannot work.

Knows what requests say and reads the store; queues nothing. Invariant: a job that is ordered can work, as far as its
settings, the size of its corpus and the checkpoint that it starts from tell.
"""

from collections.abc import Sequence

from app import presets
from app.errors import Problem, invalid
from app.feasibility import Place, check_feasible
from app.job_schemas import JobRequest, ModelSettings, TrainingSettings
from app.store.corpora import Corpus
from app.store.database import Database
from app.store.errors import Corrupted
from app.store.jobs import Order
from app.store.trained_models import Checkpoint, find_checkpoint, quarantine, read_checkpoint
from app.store.vocabularies import corpus_characters
from models.checkpoint_header import CheckpointInfo, InvalidCheckpoint, header_bytes, read_info


def order_anew(request: JobRequest, places: Sequence[Place], corpus: Corpus) -> Order:
    """The job of a request without a checkpoint. Raises Problem, InvalidConfig."""
    size = corpus.vocabulary_size
    config, course = presets.resolve(
        request.preset, *_given(request), corpus.characters, vocabulary_size=size, on_gpu=_on_gpu(places)
    )
    check_feasible(config, course, corpus, size, places)
    return Order(_name(request, corpus), config.as_dict(), course.as_dict(), metadata=request.metadata or None)


def order_continued(
    request: JobRequest, places: Sequence[Place], database: Database, corpus: Corpus, info: CheckpointInfo
) -> Order:
    """The job of a request that goes on from a checkpoint. Raises Problem, InvalidConfig, NotFound, Corrupted.

    Rarely the corpus has to be read for it (see `corpus_characters`): for threads that may wait, and no transaction.
    """
    _, given = _given(request)
    config, course = presets.resolve_continued(request.preset, *_given(request), info.config)
    characters = corpus_characters(database, corpus, config.normalization)
    new = len(set(characters).difference(info.vocabulary.characters))
    size = len(info.vocabulary) + new
    course = presets.with_softmax_samples(course, given, size, on_gpu=_on_gpu(places))
    check_feasible(config, course, corpus, size, places)
    name, noted = _name(request, corpus), request.metadata or None
    return Order(name, config.as_dict(), course.as_dict(), new_characters=new, metadata=noted)


def _on_gpu(places: Sequence[Place]) -> bool:
    """Whether every place trains on CUDA."""
    return all(place.device.startswith("cuda") for place in places)


def find_start(database: Database, reference: str) -> tuple[Checkpoint, CheckpointInfo]:
    """The checkpoint that a reference means, and what its file says; the file was read whole and is sound.

    Raises NotFound; Problem for a damaged one, which is not used again.
    """
    try:
        model, checkpoint = find_checkpoint(database, reference)
    except Corrupted:
        raise _damaged(reference) from None
    try:
        return checkpoint, read_info(_header(database, checkpoint), file_bytes=checkpoint.bytes)
    except Corrupted:
        quarantine(database, checkpoint)
        raise _damaged(f"{model.id}@{checkpoint.step}") from None
    except InvalidCheckpoint as error:
        raise invalid("from_checkpoint", str(error), code="invalid_checkpoint") from None


def _header(database: Database, checkpoint: Checkpoint) -> bytes:
    """The file's beginning, of which no more is held. Raises Corrupted, InvalidCheckpoint."""
    header, wanted = bytearray(), 8
    for piece in read_checkpoint(database, checkpoint):
        if len(header) < wanted:
            header += piece
            wanted = header_bytes(bytes(header[:8]))
    return bytes(header)


def _damaged(reference: str) -> Problem:
    detail = f"from_checkpoint: the checkpoint {reference} was found damaged and is not used; name another one."
    return Problem(500, "corrupted", detail)


def _given(request: JobRequest) -> tuple[dict[str, object], dict[str, object]]:
    """The settings that a request names, of the network and of the training."""
    return (request.model or ModelSettings()).given(), (request.training or TrainingSettings()).given()


def _name(request: JobRequest, corpus: Corpus) -> str:
    return request.name if request.name is not None else corpus.name
