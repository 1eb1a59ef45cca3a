"""Many workers' claim loops at one queue, in real processes that begin at the same moment."""

from collections import Counter
from pathlib import Path
from typing import Any

from app.store import claims, corpora, jobs
from app.store.job_state import JobStatus
from app.store.opening import open_database
from tests.databases import empty_database
from tests.faults.mortal import barrier, queue, start_mortal

LONGEST_SECONDS = 300


def claim_all(url: str, worker: str, start: Any, results: Any) -> None:
    """A worker that claims whatever waits, shows life once and ends each job: the body of a process."""
    database = open_database(url)
    start.wait(60)
    claimed = []
    while (claim := claims.claim_next(database, worker)) is not None:
        claimed.append((claim.job.id, claim.attempt))
        claims.renew(database, claim)
        claims.finish(database, claim, JobStatus.SUCCEEDED)
    results.put(claimed)
    database.close()


def race(folder: Path, workers: int, count: int) -> int:
    """How many claims were made of so many jobs, each exactly once. Raises AssertionError."""
    url = empty_database(folder, f"claims-{workers}")
    database = open_database(url)
    corpus = corpora.add_corpus(database, [b"to be or not to be"], "hamlet").corpus
    order: dict[str, Any] = {"corpus_id": corpus.id, "model": {}, "training": {}}
    made = [jobs.enqueue(database, name=f"job-{number}", **order)[0].id for number in range(count)]
    start, results = barrier(workers), queue()
    processes = [start_mortal(claim_all, url, f"worker-{number}", start, results) for number in range(workers)]
    claimed = [claim for _ in processes for claim in results.get(timeout=LONGEST_SECONDS)]
    for process in processes:
        process.join(LONGEST_SECONDS)
    assert Counter(claimed) == Counter((job_id, 1) for job_id in made), f"{workers} workers"
    assert not jobs.list_jobs(database, 1, status=JobStatus.RUNNING).data
    database.close()
    return len(claimed)
