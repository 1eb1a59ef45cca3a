"""The different characters of a corpus, as it was uploaded or normalized.

Knows nothing of networks. Invariant: what is answered is exact. It is looked up where an upload or an earlier question
has left it, told from what is known where that is exact, and else the text is read, once.
"""

import codecs
from collections.abc import Iterator

from sqlalchemy import Connection, select

from app.store.characters import Characters
from app.store.corpora import Corpus, find_corpus, read_corpus
from app.store.database import Database, upsert
from app.store.schema import vocabularies
from models.config import Normalization
from models.vocabulary import normalize_pieces, normalized_characters


def corpus_characters(database: Database, corpus: Corpus, normalization: Normalization) -> str:
    """All characters of the normalized corpus, by code point. Raises NotFound, Corrupted.

    The text is read (one to three seconds for each 100 MB) in two cases, and the answer remembered: for a corpus from
    before characters were stored, and for `nfc` of a text with combining marks or their like.
    """
    with database.read() as connection:
        known = _known(connection, corpus.id, normalization)
    if known is None and normalization != "none":
        known = normalized_characters(corpus_characters(database, corpus, "none"), normalization)
    return _read(database, corpus, normalization) if known is None else known


def _known(connection: Connection, corpus_id: str, normalization: Normalization) -> str | None:
    of_corpus = (vocabularies.c.corpus_id == corpus_id, vocabularies.c.normalization == normalization)
    return connection.execute(select(vocabularies.c.characters).where(*of_corpus)).scalar()


def _read(database: Database, corpus: Corpus, normalization: Normalization) -> str:
    different = Characters()
    for piece in normalize_pieces(_text(database, corpus), normalization):
        different.add(piece, piece.encode())
    with database.write() as connection:
        find_corpus(connection, corpus.id, hold="as it is")  # it may have been deleted meanwhile
        found = {"normalization": normalization, "characters": different.in_order()}
        upsert(connection, vocabularies, ("corpus_id", "normalization"), corpus_id=corpus.id, **found)
    return different.in_order()


def _text(database: Database, corpus: Corpus) -> Iterator[str]:
    return codecs.iterdecode(read_corpus(database, corpus), "utf-8")
