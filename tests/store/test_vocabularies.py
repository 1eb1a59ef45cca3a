"""The characters of a corpus: known from its upload, told from what is known, or read once; always exact."""

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, delete, inspect, select, update

from app.store import migrate
from app.store import vocabularies as under_test
from app.store.corpora import delete_corpus, get_corpus
from app.store.errors import Corrupted, NotFound
from app.store.jobs import get_job
from app.store.opening import open_database
from app.store.schema import blob_chunks, vocabularies
from app.store.sqlite_engine import newest_sqlite
from app.store.vocabularies import corpus_characters
from models.config import NORMALIZATIONS, Normalization
from models.vocabulary import normalize
from tests.databases import sqlite_only
from tests.store.conftest import TEXT

TEXTS = {
    "ascii": "To be, or not\r\nto be\n" * 20,
    "precomposed": "Où est l'ÉTÉ? ﬁn\u212b\n" * 20,
    "decomposed": "Ou\u0300 est l'e\u0301te\u0301?\n" * 20,
    "hangul": "\u1100\u1161\u11a8 가 각\n" * 20,
    "devanagari": "नमस्ते दुनिया\n" * 20,
    "without letters": "漢字" * 20,
}


def stored(scene: Any, corpus: Any) -> dict[str, str]:
    with scene.database.read() as connection:
        rows = connection.execute(select(vocabularies).where(vocabularies.c.corpus_id == corpus.id))
        return {row.normalization: row.characters for row in rows}


def forget(scene: Any) -> None:
    """As if all corpora were from before characters were stored."""
    with scene.database.write() as connection:
        connection.execute(delete(vocabularies))


@pytest.mark.parametrize("known", [True, False], ids=["uploaded now", "uploaded before"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_characters_are_those_of_the_normalized_text(
    scene: Any, text: str, normalization: Normalization, known: bool
) -> None:
    corpus = scene.corpus(text=text)
    if not known:
        forget(scene)
    for _ in range(2):
        characters = corpus_characters(scene.database, corpus, normalization)
        assert characters == "".join(sorted(set(normalize(text, normalization))))


def test_a_text_is_read_only_where_nothing_else_tells_and_once(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = under_test.read_corpus
    monkeypatch.setattr(under_test, "read_corpus", lambda *of: (reads.append(of[1].name), read(*of))[1])
    plain, marked = scene.corpus("plain", TEXTS["precomposed"]), scene.corpus("marked", TEXTS["decomposed"])
    for _ in range(2):
        for corpus in (plain, marked):
            for normalization in NORMALIZATIONS:
                corpus_characters(scene.database, corpus, normalization)
    assert reads == ["marked"]
    assert stored(scene, marked).keys() == {"none", "nfc"}
    forget(scene)
    for _ in range(2):
        corpus_characters(scene.database, plain, "letters")
    assert reads == ["marked", "plain"]
    assert stored(scene, plain) == {"none": "".join(sorted(set(TEXTS["precomposed"])))}


def test_the_characters_go_with_their_corpus(scene: Any) -> None:
    corpus = scene.corpus()
    assert len(stored(scene, corpus)) == 1
    delete_corpus(scene.database, corpus.id)
    assert stored(scene, corpus) == {}
    with pytest.raises(NotFound):
        corpus_characters(scene.database, corpus, "none")


def test_a_corpus_deleted_while_it_is_read_is_not_found_and_nothing_is_stored(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = scene.corpus(text=TEXTS["decomposed"])

    def reading(*_: Any) -> Any:
        yield b"a"
        delete_corpus(scene.database, corpus.id)

    monkeypatch.setattr(under_test, "read_corpus", reading)
    with pytest.raises(NotFound):
        corpus_characters(scene.database, corpus, "nfc")
    assert stored(scene, corpus) == {}


def test_a_damaged_corpus_is_told_and_nothing_is_stored(scene: Any) -> None:
    corpus = scene.corpus(text=TEXTS["decomposed"])
    with scene.database.write() as connection:
        connection.execute(update(blob_chunks).values(data=b"damaged"))
    with pytest.raises(Corrupted):
        corpus_characters(scene.database, corpus, "nfc")
    assert stored(scene, corpus).keys() == {"none"}


@sqlite_only
def test_what_an_older_version_stored_is_kept_and_its_characters_are_found_out(scene: Any, tmp_path: Path) -> None:
    job = scene.job()
    corpus = get_corpus(scene.database, job.corpus_id)
    scene.database.close()
    _store_as_of("0002", tmp_path / "old.db", tmp_path / "charsmith.db")
    database = open_database(f"sqlite:///{tmp_path}/old.db")
    assert get_corpus(database, corpus.id) == corpus
    assert get_job(database, job.id) == job
    assert corpus_characters(database, corpus, "none") == "".join(sorted(set(TEXT)))
    database.close()


def _store_as_of(revision: str, path: Path, of: Path) -> None:
    """What is in the database `of`, in a new one of an older schema."""
    old = create_engine(f"sqlite:///{path}", module=newest_sqlite())
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    with old.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with old.connect() as connection:
        connection.exec_driver_sql(f"ATTACH '{of}' AS newer")
        for table in inspect(connection).get_table_names():
            if table != "alembic_version":
                columns = ", ".join(column["name"] for column in inspect(connection).get_columns(table))
                connection.exec_driver_sql(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}")
        connection.commit()
    old.dispose()
