"""That whoever listens learns of every change, on either database."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.store import claims, jobs
from app.store.api_keys import Scope, create_key, revoke_key
from app.store.errors import StoreError
from app.store.notices import Told, listening
from tests.databases import postgres_only
from tests.store.test_postgres import cut_off


def learns(scene: Any, change: Callable[[], object]) -> Told:
    """What a listener is told of a change; it knew of everything before."""
    with listening(scene.database) as listener:
        assert listener.wait(0.1) is None, "whatever came before it began"
        assert listener.wait(0.1) == frozenset()
        change()
        return listener.wait(10)


def is_told_of(told: Told, job_id: str) -> bool:
    return told is None or job_id in told


def test_every_change_of_a_job_is_told(scene: Any) -> None:
    job = scene.job()
    assert is_told_of(learns(scene, scene.claim), job.id)
    other = scene.job(name="other")
    assert is_told_of(learns(scene, lambda: jobs.cancel_job(scene.database, other.id)), other.id)
    assert is_told_of(learns(scene, lambda: jobs.delete_job(scene.database, other.id)), other.id)


def test_a_revoked_key_is_news_of_every_job(scene: Any) -> None:
    create_key(scene.database, "ci", frozenset({Scope.READ}))
    assert learns(scene, lambda: revoke_key(scene.database, "ci")) is None


def test_what_is_told_while_nobody_waits_is_told_later(scene: Any) -> None:
    claim = scene.running()
    with listening(scene.database) as listener:
        listener.wait(0.1)
        for step in (1, 2, 3):
            claims.record_sample(scene.database, claim, step, "to be")
        assert is_told_of(listener.wait(10), claim.job.id)


@postgres_only
def test_only_the_job_that_has_news_is_told(scene: Any) -> None:
    first, second = scene.running(), scene.running(name="second")
    told = learns(scene, lambda: claims.record_sample(scene.database, second, 1, "to be"))
    assert told == {second.job.id}
    assert first.job.id not in told


@postgres_only
def test_a_listener_is_woken_at_the_commit_and_not_before(scene: Any) -> None:
    claim = scene.running()
    with listening(scene.database) as listener:
        listener.wait(0.1)
        thread = threading.Thread(target=claims.record_sample, args=(scene.database, claim, 1, "to be"))
        with scene.database.write() as connection:
            claims.held(connection, claim)
            thread.start()
            assert listener.wait(0.3) == frozenset()
        assert listener.wait(10) == {claim.job.id}
        thread.join()


@postgres_only
def test_a_listener_that_is_cut_off_says_so(scene: Any) -> None:
    def listen() -> None:
        with listening(scene.database) as listener:
            listener.wait(0.1)
            cut_off(scene.url)
            for _ in range(20):
                listener.wait(0.5)

    with pytest.raises(StoreError):
        listen()
