"""How a request for a training comes to be a queued job, in whichever dialect it was said.

Knows the store's functions, no SQL. Invariant: only what `app.orders` has found workable is queued, and the same
idempotency key with the same request queues it once.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from app.feasibility import places_of
from app.job_schemas import JobRequest
from app.logs import REQUEST_ID
from app.orders import find_start, order_anew, order_continued
from app.settings import Settings
from app.store import corpora, jobs
from app.store.api_keys import ApiKey
from app.store.database import Database
from app.store.job_rows import Job
from app.store.jobs import Order
from app.watch import Watch

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Any text of your own: the same one with the same request gives the first job again. "
        "Each API key has its own.",
    ),
]

Amend = Callable[[Order], Order]


def keyed(idempotency_key: str | None, said: BaseModel) -> tuple[str, str] | None:
    """An idempotency key with the hash of the request that it came with: equal for requests that say the same, in
    whatever order."""
    if idempotency_key is None:
        return None
    text = json.dumps(said.model_dump(exclude_unset=True), sort_keys=True)
    return idempotency_key, hashlib.sha256(text.encode()).hexdigest()


def queue_job(
    database: Database,
    settings: Settings,
    watch: Watch,
    caller: ApiKey | None,
    request: JobRequest,
    key: tuple[str, str] | None,
    amend: Amend = lambda order: order,
) -> tuple[Job, bool]:
    """The queued job, and whether it is new. `amend` may change what was resolved; it is asked within a transaction.

    Raises what `enqueue_planned` and `app.orders` raise.
    """
    whose, limit = caller.id if caller else None, settings.max_queued_jobs
    asked = REQUEST_ID.get() or None
    queue = partial(jobs.enqueue_planned, idempotency=key, queue_limit=limit, key_id=whose, request_id=asked)
    places = places_of(watch.workers_seen())
    if request.from_checkpoint is None:
        return queue(database, request.corpus, lambda corpus: amend(order_anew(request, places, corpus)))
    if first := jobs.first_of_key(database, key, key_id=whose):  # whatever has become of the checkpoint since
        return first, False
    # Looked up first, to be read outside of the transaction.
    corpus = corpora.get_corpus(database, request.corpus)
    checkpoint, info = find_start(database, request.from_checkpoint)
    order = amend(order_continued(request, places, database, corpus, info))
    return queue(database, corpus.id, lambda _: order, from_checkpoint=checkpoint.id)
