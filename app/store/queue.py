"""Whose turn it is: the order in which waiting jobs are claimed, and how many may wait.

Invariant: keys take turns, each with its oldest job, so that whoever queues a thousand delays the first of another key
by one job for each worker, and cannot keep it out of the queue. All jobs without a key are one key's; alone they go
first in, first out.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, select
from sqlalchemy.sql.selectable import ScalarSelect

from app.store.database import upsert
from app.store.errors import QueueFull
from app.store.job_state import JobStatus
from app.store.schema import api_keys, jobs, queue_turns

NO_KEY = ""
"""In place of a key's id."""

_waiting = jobs.alias("waiting")
_key_id = func.coalesce(_waiting.c.key_id, NO_KEY)
_queued = _waiting.c.status == JobStatus.QUEUED.value
_turn = func.coalesce(queue_turns.c.turn, 0)


def next_in_turn(not_now: Collection[str] = ()) -> Select[tuple[int]]:
    """The sequence of the job to be claimed: the oldest of the key that has waited longest for its turn.

    Jobs with the ids `not_now` are passed over, as if they did not wait.

    By the sequence and the key's id alone, which an index holds: a row of a job is kilobytes.
    """
    with_turns = _waiting.outerjoin(queue_turns, queue_turns.c.key_id == _key_id)
    return (
        select(_waiting.c.sequence)
        .select_from(with_turns)
        .where(_queued, *passing_over(_waiting.c.sequence, not_now))
        .order_by(_turn, _waiting.c.sequence)
        .limit(1)
        .with_for_update(skip_locked=True, of=_waiting)  # PostgreSQL; under SQLite the transaction is alone
    )


def passing_over(sequence: ColumnElement[int], job_ids: Collection[str]) -> list[ColumnElement[bool]]:
    """The conditions that a job with this sequence is none of these, if there are any. An index holds no ids."""
    return [sequence.not_in(select(jobs.c.sequence).where(jobs.c.id.in_(job_ids)))] if job_ids else []


def take_turn(connection: Connection, key_id: str | None) -> None:
    """The key has had its turn: all others come before it."""
    latest = select(func.coalesce(func.max(queue_turns.c.turn), 0) + 1).scalar_subquery()
    upsert(connection, queue_turns, ["key_id"], key_id=key_id or NO_KEY, turn=latest)


def give_turn_back(connection: Connection, key_id: str | None) -> None:
    """The key's turn was not used, as the worker is gone: it stands as a key that had none, and by its age."""
    connection.execute(delete(queue_turns).where(queue_turns.c.key_id == (key_id or NO_KEY)))


def place_of(job: Any) -> ScalarSelect[int]:
    """Where a row of `jobs` stands in the queue, from 1: how many claims it takes until it is claimed, if no job comes.

    Keys that never had a turn go by their oldest job.
    """
    key = _waiting.c.key_id
    rounds = (
        select(
            _waiting.c.sequence,
            _key_id.label("key_id"),
            func.row_number().over(partition_by=key, order_by=_waiting.c.sequence).label("round"),
            func.min(_waiting.c.sequence).over(partition_by=key).label("oldest"),
        )
        .where(_queued)
        .subquery("rounds")
    )
    placed = (
        select(
            rounds.c.sequence,
            func.row_number().over(order_by=(rounds.c.round, _turn, rounds.c.oldest)).label("place"),
        )
        .select_from(rounds.outerjoin(queue_turns, queue_turns.c.key_id == rounds.c.key_id))
        .subquery("placed")
    )
    return select(placed.c.place).where(placed.c.sequence == job.c.sequence).scalar_subquery()


def check_room(connection: Connection, queue_limit: int, key_id: str | None) -> None:
    """Return if one more job of the key may wait. Raises QueueFull.

    Of whom nothing waits one is taken even into a full queue: nobody's thousand jobs keep another's first one out.
    """
    own = _waiting.c.key_id == key_id  # of None: IS NULL
    if _count(connection) >= queue_limit and _count(connection, own):
        raise QueueFull(queue_limit)
    if key_id is None:
        return
    limit = connection.execute(select(api_keys.c.max_queued_jobs).where(api_keys.c.id == key_id)).scalar()
    if limit is not None and _count(connection, own) >= limit:
        raise QueueFull(limit, of_key=True)


def _count(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(_waiting).where(_queued, *conditions)).scalar_one()
