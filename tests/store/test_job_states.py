"""Any sequence of what people and workers may do to jobs, also to one that is being saved: no status is undone.

Hypothesis draws the sequences and shortens one that breaks a promise. Transactions are whole, so what several processes
do at once is one of these sequences.
"""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from app.store import claims, corpora, jobs, recording
from app.store.errors import Conflict, LeaseLost, NotFound, StoreError
from app.store.events import events_after
from app.store.job_state import FINISHED, TRANSITIONS, JobStatus
from app.store.lease import release_in
from app.store.opening import open_database
from tests.databases import fresh_database, give_back
from tests.forms import by_form

EXAMPLES, STEPS = by_form(40, 200, 1000), 25
ENDS = [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]
MEANWHILE = ["nothing", "cancel", "pause_or_resume", "take_over", "delete"]
ANY = st.integers(0, 5)
"""Which of the jobs or claims, counted round."""


class Jobs(RuleBasedStateMachine):
    """A database, jobs, and all claims that were ever given out."""

    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.url = fresh_database(Path(tempfile.mkdtemp(dir=self.folder)))
        self.database = open_database(self.url)
        self.corpus_id = corpora.add_corpus(self.database, [b"to be, or not to be"], "hamlet").corpus.id
        self.made: list[str] = []
        self.claims: list[claims.Claim] = []
        self.ended: dict[str, str] = {}
        self.cancelled: set[str] = set()
        """Jobs of which a cancel was accepted."""

    def teardown(self) -> None:
        self.database.close()
        give_back(self.url)

    @precondition(lambda self: len(self.made) < 4)
    @rule()
    def enqueue(self) -> None:
        what: dict[str, Any] = {"name": "job", "corpus_id": self.corpus_id, "model": {}, "training": {}}
        self.made.append(jobs.enqueue(self.database, **what)[0].id)

    @rule()
    def claim(self) -> None:
        if claim := claims.claim_next(self.database, f"worker-{len(self.claims)}"):
            assert claim.job.id not in self.cancelled, "what was cancelled is not begun again"
            self.claims.append(claim)

    @precondition(lambda self: self.made)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        with suppress(Conflict, NotFound):
            self.cancelled.add(jobs.cancel_job(self.database, self._job(which)).id)

    @precondition(lambda self: self.made)
    @rule(which=ANY, verb=st.sampled_from([jobs.pause_job, jobs.resume_job]))
    def pause_or_resume(self, which: int, verb: Callable[..., Any]) -> None:
        with suppress(Conflict, NotFound):
            verb(self.database, self._job(which))

    @precondition(lambda self: self.made)
    @rule(which=ANY)
    def delete(self, which: int) -> None:
        with suppress(Conflict, NotFound):
            jobs.delete_job(self.database, self._job(which))
            self.made.remove(self._job(which))

    @precondition(lambda self: self.claims)
    @rule(which=ANY)
    def beat(self, which: int) -> None:
        self._by(which, lambda claim: claims.renew(self.database, claim))

    @precondition(lambda self: self.claims)
    @rule(which=ANY, status=st.sampled_from(ENDS))
    def finish(self, which: int, status: JobStatus) -> None:
        error = {"code": "x"} if status is JobStatus.FAILED else None
        self._by(which, lambda claim: claims.finish(self.database, claim, status, error))

    @precondition(lambda self: self.claims)
    @rule(which=ANY, crashed=st.booleans(), pause=st.booleans())
    def give_back(self, which: int, crashed: bool, pause: bool) -> None:
        self._by(which, lambda claim: claims.release(self.database, claim, crashed=crashed, pause=pause))

    @precondition(lambda self: self.claims)
    @rule(which=ANY)
    def take_over(self, which: int) -> None:
        """As a watch does when a worker showed no life."""

        def taken(claim: claims.Claim) -> None:
            with self.database.write() as connection:
                release_in(self.database, connection, claim, crashed=True)

        self._by(which, taken)

    @precondition(lambda self: self.claims)
    @rule(which=ANY, job=ANY, meanwhile=st.sampled_from(MEANWHILE))
    def save(self, which: int, job: int, meanwhile: str) -> None:
        """A checkpoint is stored, and between two of its transactions somebody else comes."""
        between = {
            "nothing": lambda: None,
            "cancel": lambda: self.cancel(job),
            "pause_or_resume": lambda: self.pause_or_resume(job, jobs.pause_job),
            "take_over": lambda: self.take_over(which),
            "delete": lambda: self.delete(job),
        }[meanwhile]
        original = recording.write_blob

        def interrupted(*arguments: Any) -> Any:
            recording.write_blob = original
            between()
            return original(*arguments)

        facts: dict[str, Any] = {"train_loss": 1.0, "val_loss": 1.0, "checkpoint": b"w", "resume_point": b"r"}
        facts |= {"step": 1, "info": {"vocabulary_size": 2, "parameters": 2}}
        recording.write_blob = interrupted
        try:
            self._by(which, lambda claim: claims.record_saved(self.database, claim, **facts), alone=False)
        finally:
            recording.write_blob = original

    def _job(self, which: int) -> str:
        return self.made[which % len(self.made)]

    def _by(self, which: int, write: Callable[[claims.Claim], Any], *, alone: bool = True) -> None:
        """A worker writes. Of each job the newest claim alone may."""
        claim = self.claims[which % len(self.claims)]
        newest = all(c.job.id != claim.job.id or c.attempt <= claim.attempt for c in self.claims)
        before = self._told(claim.job.id)
        try:
            write(claim)
        except LeaseLost:
            assert not alone or self._told(claim.job.id) == before, "a stale worker has changed something"
        except NotFound:
            assert claim.job.id not in self.made
        else:
            assert newest, "an older claim was good for something"

    def _told(self, job_id: str) -> list[str]:
        with suppress(StoreError):
            told = events_after(self.database, job_id, 0)
            return [str(event.data["status"]) for event in told if event.type == "status"]
        return []

    @invariant()
    def statuses_follow_the_table_and_an_end_is_an_end(self) -> None:
        for job_id in self.made:
            told = [JobStatus(status) for status in self._told(job_id)]
            job = jobs.get_job(self.database, job_id)
            assert told[0] is JobStatus.QUEUED
            for before, after in pairwise(told):
                assert after in TRANSITIONS[before], told
            assert job.status is told[-1]
            assert sum(status in FINISHED for status in told) == (job.status in FINISHED)
            assert self.ended.setdefault(job_id, job.status) == job.status or self.ended[job_id] not in FINISHED
            self.ended[job_id] = job.status
            if job_id in self.cancelled:
                assert job.cancel_requested or job.status in FINISHED, "a cancel that was accepted is forgotten"


@pytest.mark.forms
def test_whatever_people_and_workers_do_a_job_moves_by_the_table_and_ends_once(tmp_path: Path) -> None:
    Jobs.folder = tmp_path
    unhurried = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Jobs, settings=unhurried)
