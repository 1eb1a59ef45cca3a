"""Keys in the store: made, found, worth nothing any more."""

import sqlite3
import threading
from datetime import timedelta
from typing import Any

import pytest

from app.store.api_keys import ApiKey, Scope, any_usable, create_key, list_keys, revoke_key
from app.store.errors import Conflict, DatabaseFailed, NotFound
from app.store.key_ring import KeyRefused, KeyRing, Keys
from app.store.key_text import parse_key, without_keys
from app.store.names import InvalidName
from app.store.workers import announce
from tests.databases import sqlite_only
from tests.store.test_database import OLD_SQLITE

READ = frozenset({Scope.READ})


def recognize(ring: KeyRing, presented: str | None) -> ApiKey | None:
    """As the service does it."""
    count, keys = ring.held()
    return (keys or ring.read(count)).recognize(presented, ring.database.now())


def test_a_key_is_recognized_and_of_its_secret_only_a_hash_is_stored(scene: Any) -> None:
    key, text = create_key(scene.database, "ci", READ, max_queued_jobs=3, max_streams=2, lifetime=timedelta(days=1))

    assert recognize(KeyRing(scene.database), text) == key
    assert (key.name, key.scopes, key.max_queued_jobs, key.max_streams) == ("ci", READ, 3, 2)
    assert (key.created_at, key.expires_at) == (scene.clock(), scene.clock() + timedelta(days=1))
    parts = parse_key(text)
    assert parts is not None
    assert len(parts.secret) * 5 >= 128, "bits"
    stored = str(scene.dump())
    assert parts.lookup in stored
    assert parts.secret not in stored


def test_no_two_keys_are_alike(scene: Any) -> None:
    texts = [create_key(scene.database, f"key-{number}", READ)[1] for number in range(50)]
    assert len({part for text in texts for part in text.split("_")[1:]}) == 100


def test_names_of_keys_that_are_not_revoked_are_unique_so_that_a_name_means_one_key(scene: Any) -> None:
    first, _ = create_key(scene.database, "ci", READ)
    with pytest.raises(Conflict, match="'ci' already"):
        create_key(scene.database, "ci", READ)
    assert revoke_key(scene.database, "ci").id == first.id
    with pytest.raises(NotFound):
        revoke_key(scene.database, "ci")
    second, _ = create_key(scene.database, "ci", READ)
    with pytest.raises(Conflict, match="revoked already"):
        revoke_key(scene.database, first.id)
    assert revoke_key(scene.database, second.id).revoked_at == scene.clock()
    assert [key.id for key in list_keys(scene.database)] == [second.id, first.id]


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "..", "key_" + "a" * 26])
def test_a_key_has_a_name_as_everything_has(scene: Any, name: str) -> None:
    with pytest.raises(InvalidName):
        create_key(scene.database, name, READ)


def test_a_key_is_usable_until_it_expires_or_is_revoked(scene: Any) -> None:
    assert not any_usable(scene.database)
    create_key(scene.database, "short", READ, lifetime=timedelta(hours=1))
    assert any_usable(scene.database)
    scene.clock.jump(hours=1)
    assert not any_usable(scene.database)
    create_key(scene.database, "long", READ)
    assert any_usable(scene.database)
    revoke_key(scene.database, "long")
    assert not any_usable(scene.database)


def test_as_long_as_no_key_was_made_whatever_is_presented_passes_and_never_again(scene: Any) -> None:
    ring, other = KeyRing(scene.database), f"csk_{'a' * 16}_{'b' * 32}"
    for presented in (None, "", "password", other) * 2:
        assert recognize(ring, presented) is None
    create_key(scene.database, "ci", READ)
    revoke_key(scene.database, "ci")
    for presented in (None, "", "password", other) * 2:
        with pytest.raises(KeyRefused):
            recognize(ring, presented)


@sqlite_only
def test_keys_are_held_until_something_is_committed_and_then_read_anew(scene: Any) -> None:
    ring = KeyRing(scene.database)
    text = create_key(scene.database, "ci", READ)[1]
    assert ring.held() == (None, None)
    recognize(ring, text)
    recognize(ring, text)
    count, keys = ring.held()
    assert ring.held() == (count, keys)
    assert keys is not None
    announce(scene.database, "worker-1", "cpu")
    later, none = ring.held()
    assert later != count
    assert none is None
    recognize(ring, text)
    assert ring.held()[1] is not None
    revoke_key(scene.database, "ci")
    with pytest.raises(KeyRefused):
        recognize(ring, text)


def test_what_is_committed_while_keys_are_read_is_not_missed(scene: Any) -> None:
    ring = KeyRing(scene.database)
    ring.read(ring.held()[0])
    count, _ = ring.held()
    text = create_key(scene.database, "ci", READ)[1]
    ring.read(count)  # finds the key, under the number of before
    revoke_key(scene.database, "ci")
    ring.read(count)
    assert ring.held()[1] is None
    with pytest.raises(KeyRefused):
        recognize(ring, text)


@sqlite_only
def test_two_threads_that_read_first_count_commits_with_one_connection(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is stopped when it has its connection; what the second makes of that must not hide a key."""
    ring, begin = KeyRing(scene.database), scene.database.commits
    has_begun, may_go_on = threading.Event(), threading.Event()
    begun = []

    def begin_slowly() -> Any:
        begun.append(own := begin())
        if len(begun) == 1:
            has_begun.set()
            assert may_go_on.wait(20)
        return own

    monkeypatch.setattr(scene.database, "commits", begin_slowly)
    first = threading.Thread(target=ring.read, args=(None,))
    try:
        with scene.database.read():  # takes the one connection with a past: new ones count alike
            first.start()
            assert has_begun.wait(20)
            assert recognize(ring, None) is None
            assert recognize(ring, None) is None
        announce(scene.database, "worker-1", "cpu")
        assert recognize(ring, None) is None
        create_key(scene.database, "ci", READ)
    finally:
        may_go_on.set()
        first.join(20)
    for _ in range(3):
        with pytest.raises(KeyRefused):
            recognize(ring, None)
    assert len(begun) == 1


@sqlite_only
def test_a_connection_that_could_not_be_had_is_asked_for_again(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(scene.database)

    def fail() -> None:
        raise DatabaseFailed("disk I/O error")

    with monkeypatch.context() as failing:
        failing.setattr(scene.database, "commits", fail)
        with pytest.raises(DatabaseFailed):
            recognize(ring, None)
    recognize(ring, None)
    recognize(ring, None)
    assert ring.held()[1] is not None


def test_revoked_keys_are_not_read_though_they_close_the_installation(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, read = KeyRing(scene.database), []

    def keys(rows: Any, *more: Any) -> Keys:
        read.append([row.name for row in rows])
        return Keys(rows, *more)

    monkeypatch.setattr("app.store.key_ring.Keys", keys)
    for name in ("one", "two"):
        create_key(scene.database, name, READ)
        revoke_key(scene.database, name)
    with pytest.raises(KeyRefused):
        recognize(ring, None)
    text = create_key(scene.database, "three", READ)[1]
    assert recognize(ring, text) is not None
    assert read == [[], ["three"]]


@sqlite_only
def test_to_ask_for_commits_neither_waits_nor_fails(scene: Any) -> None:
    """Under the rollback journal a writer that commits locks readers out; a closed database has nothing to tell."""
    database = _with_rollback_journal(scene)
    commits = database.commits()
    assert commits is not None
    assert commits.count() == commits.count() is not None
    with sqlite3.connect(scene.url.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        answered = threading.Event()
        told: list[int | None] = []
        thread = threading.Thread(target=lambda: (told.append(commits.count()), answered.set()))
        thread.start()
        assert answered.wait(10), "the busy timeout of the others is 15 s"
        thread.join()
        assert told == [None]
        other.execute("ROLLBACK")
    other.close()
    assert commits.count() is not None
    database.close()
    assert commits.count() is None


def _with_rollback_journal(scene: Any) -> Any:
    from app.store.opening import open_database

    scene.database.close()
    return open_database(scene.url, sqlite_module=OLD_SQLITE)  # type: ignore[arg-type]


def test_keys_that_cannot_be_read_have_the_databases_error(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(scene.database)
    create_key(scene.database, "ci", READ)

    def fail() -> None:
        raise DatabaseFailed("disk I/O error")

    monkeypatch.setattr(scene.database, "read", fail)
    with pytest.raises(DatabaseFailed):
        recognize(ring, None)


def test_keys_are_taken_out_of_texts() -> None:
    key = f"csk_{'a' * 16}_{'b' * 32}"
    assert without_keys(f"GET /models?key={key}&x=1 {key}") == "GET /models?key=csk_...&x=1 csk_..."
    assert without_keys("csk_short_b") == "csk_short_b"
