"""Corpora: immutable, stored once, found by id or name."""

import multiprocessing
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select

from app.store import corpora, jobs
from app.store.corpora import NotText, add_corpus, delete_corpus, get_corpus, list_corpora, read_corpus
from app.store.errors import Conflict, InvalidCursor, NotFound
from app.store.names import InvalidName
from app.store.opening import open_database
from app.store.schema import blobs


def count_blobs(scene: Any) -> int:
    with scene.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(blobs)).scalar_one())


def test_a_text_is_described_and_comes_back_byte_for_byte(scene: Any) -> None:
    data = "\ufeffÉtude\r\nno. 1".encode()
    corpus, is_new, mark_dropped = add_corpus(scene.database, [data], "etude")
    assert is_new
    assert mark_dropped
    assert (corpus.bytes, corpus.characters, corpus.vocabulary_size) == (13, 12, 12)
    assert corpus.preview == "Étude\r\nno. 1"
    assert corpus.created_at == scene.clock()
    assert get_corpus(scene.database, corpus.id) == get_corpus(scene.database, "etude") == corpus
    assert b"".join(read_corpus(scene.database, corpus)) == data[3:]


def test_the_same_bytes_again_are_the_first_corpus(scene: Any) -> None:
    first = scene.corpus("first", "hello hello")
    again = add_corpus(scene.database, [b"hello ", b"hello"], "second")
    assert again == (first, False, False)
    marked = add_corpus(scene.database, [b"\xef\xbb\xbfhello hello"], "third")
    assert marked == (first, False, True)
    assert count_blobs(scene) == 1


def test_a_name_means_the_newest_corpus_that_has_it(scene: Any) -> None:
    scene.corpus("poems", "one one")
    newer = scene.corpus("poems", "two two")
    assert get_corpus(scene.database, "poems") == newer


@pytest.mark.parametrize("data", [b"", b"x", b"ab\xff", b"ab\x00"])
def test_what_is_no_text_leaves_nothing_behind(scene: Any, data: bytes) -> None:
    with pytest.raises(NotText):
        add_corpus(scene.database, [data], "bad")
    assert count_blobs(scene) == 0


def test_a_bad_name_is_refused_before_anything_is_read(scene: Any) -> None:
    def unread() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    with pytest.raises(InvalidName):
        add_corpus(scene.database, unread(), "bad name")


@pytest.mark.parametrize("key", ["nothing", "corpus_" + "a" * 26, "", "\ud800", "a\x00b", "x" * 100_000, "a'--"])
def test_an_unknown_key_is_not_found(scene: Any, key: str) -> None:
    with pytest.raises(NotFound):
        get_corpus(scene.database, key)
    with pytest.raises(NotFound):
        delete_corpus(scene.database, key)


def test_pages_stay_in_place_while_corpora_are_added(scene: Any) -> None:
    names = [f"text-{number}" for number in range(7)]
    for name in names:
        scene.corpus(name, name * 3)
    seen, after = [], None
    while True:
        page = list_corpora(scene.database, 3, after)
        seen += [corpus.name for corpus in page.data]
        scene.corpus(f"late-{len(seen)}", f"late {len(seen)}")
        after = page.next
        if after is None:
            break
    assert seen == names[::-1]


def test_a_page_that_ends_exactly_has_no_next(scene: Any) -> None:
    scene.corpus()
    assert list_corpora(scene.database, 1).next is None
    assert list_corpora(scene.database, 1, scene.corpus().id).data == []


@pytest.mark.parametrize("after", ["corpus_" + "a" * 26, "nonsense", "", "\ud800"])
def test_a_cursor_that_is_not_in_the_list_is_refused(scene: Any, after: str) -> None:
    with pytest.raises(InvalidCursor):
        list_corpora(scene.database, 3, after)


@pytest.mark.parametrize("status", ["queued", "running", "paused"])
def test_a_corpus_that_a_job_needs_is_not_deleted(scene: Any, status: str) -> None:
    job = scene.job()
    if status == "running":
        scene.claim()
    if status == "paused":
        jobs.pause_job(scene.database, job.id)
    before = scene.dump()
    with pytest.raises(Conflict, match=f"{job.id} \\({status}\\) needs"):
        delete_corpus(scene.database, job.corpus_id)
    assert scene.dump() == before


def test_a_finished_job_outlives_its_corpus(scene: Any) -> None:
    job = scene.job()
    jobs.cancel_job(scene.database, job.id)
    delete_corpus(scene.database, "plays")
    kept = jobs.get_job(scene.database, job.id)
    assert (kept.corpus_id, kept.corpus_name) == (None, "plays")
    with pytest.raises(NotFound):
        get_corpus(scene.database, "plays")


def test_a_large_text_takes_little_memory(scene: Any) -> None:
    piece = ("Wörter und wieder Wörter\n" * 3000).encode()
    tracemalloc.start()
    try:
        corpus = add_corpus(scene.database, (piece for _ in range(400)), "large").corpus
        size = sum(len(part) for part in read_corpus(scene.database, corpus))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 400 * len(piece) > 30_000_000
    assert peak < 10_000_000


def _upload(url: str, start: Any, results: Any) -> None:
    database = open_database(url)
    start.wait(60)
    corpus, is_new, _ = corpora.add_corpus(database, (b"the same text\n" * 10_000 for _ in range(20)), "same")
    results.put((corpus.id, is_new))
    database.close()


def test_processes_that_upload_the_same_bytes_at_once_get_one_corpus(scene: Any) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(3), spawn.Queue()
    children = [spawn.Process(target=_upload, args=(scene.url, start, results)) for _ in range(3)]
    for child in children:
        child.start()
    answers = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    assert len({corpus_id for corpus_id, _ in answers}) == 1
    assert sorted(is_new for _, is_new in answers) == [False, False, True]
    assert count_blobs(scene) == 1


def test_corpora_are_listed_oldest_first_where_it_is_asked_for(scene: Any) -> None:
    ids = [scene.corpus(f"text-{number}", f"text {number}").id for number in range(5)]
    first = list_corpora(scene.database, 3, oldest_first=True)
    rest = list_corpora(scene.database, 3, first.next, oldest_first=True)
    assert [corpus.id for corpus in (*first.data, *rest.data)] == ids
    assert rest.next is None
