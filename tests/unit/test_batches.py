"""Lanes cover the text and read what follows what; encoding needs memory for a piece, not for the text."""

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from models.config import TrainingConfig
from models.vocabulary import UnknownCharacter, Vocabulary
from worker.batches import Corpus, Lanes, encode_corpus, split

CASES = list(itertools.product([12, 13, 50, 101, 256], [1, 3, 8], [1, 4, 11]))


@pytest.mark.parametrize(("characters", "lanes", "sequence_length"), CASES)
def test_lanes_cover_the_text_and_predict_the_next_character(characters: int, lanes: int, sequence_length: int) -> None:
    reader = Lanes(np.arange(characters), lanes, sequence_length)
    seen: set[int] = set()
    for step in range(reader.windows):
        batch = reader.read(step)
        assert np.array_equal(batch.targets_BT, batch.inputs_BT + 1)
        assert 1 <= batch.inputs_BT.shape[1] <= sequence_length
        seen.update(batch.targets_BT.flat)
    assert seen == set(range(1, characters))


@pytest.mark.parametrize(("characters", "lanes", "sequence_length"), CASES)
def test_a_lane_goes_on_where_it_stopped_until_it_wraps(characters: int, lanes: int, sequence_length: int) -> None:
    reader = Lanes(np.arange(characters), lanes, sequence_length)
    for step in range(1, 3 * reader.windows):
        before, batch = reader.read(step - 1), reader.read(step)
        assert batch.wraps == (step % reader.windows == 0)
        if not batch.wraps:
            assert np.array_equal(batch.inputs_BT[:, 0], before.targets_BT[:, -1])


def test_what_a_step_reads_depends_on_the_step_alone() -> None:
    first, second = Lanes(np.arange(100), 4, 5), Lanes(np.arange(100), 4, 5)
    for step in range(9):
        first.read(step)
    assert np.array_equal(first.read(9).inputs_BT, second.read(9).inputs_BT)


def test_a_short_text_has_fewer_lanes_rather_than_lanes_shorter_than_a_sequence() -> None:
    assert Lanes(np.arange(1000), 32, 64).lanes == 15
    assert Lanes(np.arange(65), 32, 64).lanes == 1


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("sequence_length", [1, 7, 64])
def test_the_minimum_is_the_shortest_text_that_can_be_trained_on(fraction: float, sequence_length: int) -> None:
    training = TrainingConfig(validation_fraction=fraction, sequence_length=sequence_length)
    minimum = training.minimum_characters
    kept = [len(split(Corpus(np.zeros(n), Vocabulary("a"), ""), training)[0]) for n in (minimum, minimum - 1)]
    assert kept[0] >= sequence_length + 1 > kept[1]


def test_the_split_is_the_end_of_the_text_and_nothing_is_lost() -> None:
    corpus = Corpus.of("abcdefghij" * 10)
    train, validation = split(corpus, TrainingConfig(validation_fraction=0.25))
    assert (len(train), len(validation)) == (75, 25)
    assert np.array_equal(np.concatenate((train, validation)), corpus.ids)
    assert len(split(corpus, TrainingConfig(validation_fraction=0))[1]) == 0


def test_a_corpus_is_read_back_from_its_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary("ab\u8a9e")
    assert encode_corpus(["ab", "", "b\u8a9e"], tmp_path / "ids", vocabulary) == 4
    corpus = Corpus.open(tmp_path / "ids", vocabulary, "hash")
    assert corpus.ids.dtype == np.uint16
    assert vocabulary.decode(corpus.ids.tolist()) == "abb\u8a9e"


def test_a_vocabulary_too_large_for_16_bits_is_encoded_in_32(tmp_path: Path) -> None:
    characters = "".join(chr(p) for p in range(0x10000, 0x10000 + 70_000))
    vocabulary = Vocabulary(characters)
    encode_corpus([characters[::-1]], tmp_path / "ids", vocabulary)
    corpus = Corpus.open(tmp_path / "ids", vocabulary, "")
    assert corpus.ids.dtype == np.int32
    assert corpus.ids[0] == 69_999
    assert corpus.ids[-1] == 0


def test_an_empty_text_is_an_empty_corpus(tmp_path: Path) -> None:
    assert encode_corpus([], tmp_path / "ids", Vocabulary("a")) == 0
    assert len(Corpus.open(tmp_path / "ids", Vocabulary("a"), "").ids) == 0


def test_a_character_that_the_vocabulary_lacks_stops_the_encoding(tmp_path: Path) -> None:
    with pytest.raises(UnknownCharacter):
        encode_corpus(["abc"], tmp_path / "ids", Vocabulary("ab"))


def test_encoding_a_long_text_needs_memory_for_a_piece(tmp_path: Path) -> None:
    vocabulary, piece = Vocabulary("ab"), "ab" * 50_000
    tracemalloc.start()
    characters = encode_corpus(itertools.repeat(piece, 200), tmp_path / "ids", vocabulary)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert characters == 20_000_000
    assert peak < 8e6
