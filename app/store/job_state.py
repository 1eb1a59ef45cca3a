"""Where a job may stand and how it may move: the one table that every statement of the store is written from.

Cancelling and pausing a running job are flags on it, not statuses: the job runs until its worker has seen them.
"""

from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"  # waits for a worker; left by a claim, a pause or a cancel
    RUNNING = "running"  # one attempt of one worker, which renews its lease
    PAUSED = "paused"  # waits for a person; its resume point is kept
    SUCCEEDED = "succeeded"  # the budget is used up, or patience ended it
    FAILED = "failed"  # `error` says why; checkpoints stored before stay usable
    CANCELLED = "cancelled"  # a person ended it; checkpoints stored before stay usable


FINISHED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {
            JobStatus.QUEUED,  # its worker stopped or died: the next attempt goes on from the resume point
            JobStatus.PAUSED,
            JobStatus.SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.CANCELLED,
        }
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


def sources_of(target: JobStatus) -> frozenset[JobStatus]:
    """The statuses from which `target` may be reached."""
    return frozenset(source for source, targets in TRANSITIONS.items() if target in targets)
