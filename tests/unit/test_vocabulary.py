"""Characters come back code point for code point, and a text in pieces is normalized as the whole."""

import random
import re
import subprocess
import sys
import unicodedata

import pytest

from models.config import NORMALIZATIONS, Normalization
from models.vocabulary import (
    MOST_HELD,
    EmptyText,
    Normalizer,
    UnknownCharacter,
    Vocabulary,
    _begins_anew,
    normalize,
    normalize_pieces,
    normalized_characters,
)

CHINESE = "".join(chr(0x4E00 + i) for i in range(5_000))
FAMILY = "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽"
MARKS = "e\u0301 ạ̈ ক\u09be \u1112\u1161\u11ab Σίσυφος İstanbul ﬁne Ａ½"
TEXTS = [CHINESE, FAMILY, MARKS, "To be, or not\r\nto be\n", "\u0301\u0302 a", "日本語テキスト", "नमस्ते दुनिया"]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_any_text_comes_back_code_point_for_code_point(text: str) -> None:
    vocabulary = Vocabulary.of([text])
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert list(vocabulary.characters) == sorted(set(text))


def test_five_thousand_chinese_characters_have_five_thousand_ids() -> None:
    assert len(Vocabulary.of([CHINESE])) == 5_000


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_text_in_pieces_is_normalized_as_the_whole(normalization: Normalization) -> None:
    alphabet = "ab Z.\n" + MARKS + FAMILY + "가각힣\u1100\u1161\u11a8語"
    draw = random.Random(7)
    for _ in range(300):
        text = "".join(draw.choices(alphabet, k=draw.randrange(60)))
        cuts = sorted(draw.choices(range(len(text) + 1), k=draw.randrange(8)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert "".join(normalize_pieces(pieces, normalization)) == normalize(text, normalization)


def test_marks_without_end_are_cut_before_composing_them_takes_for_ever() -> None:
    marks = "\u0301\u0316" * 100
    normalizer = Normalizer("nfc")
    told = [normalizer.feed(piece) for piece in ["e", *[marks] * 200, "e"]]
    assert max(map(len, told)) <= MOST_HELD + len(marks)
    whole = "".join(told) + normalizer.end()
    assert len(whole) == 1 + 200 * len(marks) - 1 + 1, "the first mark is part of the e"


def test_no_character_that_begins_anew_is_ever_joined_to_the_one_before() -> None:
    seconds = set()
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        parts = unicodedata.decomposition(character).split()
        if parts and not parts[0].startswith("<"):
            seconds.update(chr(int(part, 16)) for part in parts[1:])
        if unicodedata.combining(character):
            assert not _begins_anew(character), hex(point)
    for first in map(chr, [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]):
        seconds.add(first)
    assert seconds
    assert [hex(ord(c)) for c in sorted(seconds) if _begins_anew(c)] == []


def test_letters_is_the_tutorials_preparation() -> None:
    assert normalize("Où  est—l'ÉTÉ?\n42 ", "letters") == "ou est l ete "


def letters_slowly(text: str) -> str:
    """The tutorial's preparation, character by character of the whole decomposed text."""
    bare = unicodedata.normalize("NFKD", text).lower()
    kept = "".join(c if "a" <= c <= "z" else " " for c in bare if not unicodedata.combining(c))
    return re.sub(" +", " ", kept)


def test_letters_makes_of_every_code_point_what_the_reference_makes() -> None:
    # Between letters and alone; surrogates, which no text has, left out.
    points = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]
    for start in range(0, len(points), 4096):
        text = "".join(f"q{chr(point)}q" for point in points[start : start + 4096])
        assert normalize(text, "letters") == letters_slowly(text), hex(points[start])
        alone = "".join(map(chr, points[start : start + 4096]))
        assert normalize(alone, "letters") == letters_slowly(alone), hex(points[start])


def test_letters_makes_of_any_mixture_what_the_reference_makes() -> None:
    alphabet = "aZ \n.,0É\u0130\u0131ΣςΑΣß\u1e9e\u0345\u0323\u0301\u212aﬁǅ가\u1100\u1161\u11a8½㎏ℌ語🏽" + MARKS
    draw = random.Random(11)
    for _ in range(2_000):
        text = "".join(draw.choices(alphabet, k=draw.randrange(40)))
        assert normalize(text, "letters") == letters_slowly(text), ascii(text)


def test_nfc_composes_what_can_be_composed() -> None:
    assert normalize("e\u0301", "nfc") == "é"


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_characters_of_a_normalized_text_are_told_from_those_of_the_text_wherever_that_is_exact(
    normalization: Normalization,
) -> None:
    alphabet = "ab Z.\n" + MARKS + FAMILY + "가각힣\u1100\u1161\u11a8語é\u212b\ufa10\u2126\u0958\ufb1d"
    draw, untold = random.Random(8), 0
    for _ in range(2_000):
        text = "".join(draw.choices(alphabet, k=draw.randrange(20)))
        told = normalized_characters("".join(sorted(set(text))), normalization)
        untold += told is None
        assert told in (None, "".join(sorted(set(normalize(text, normalization))))), ascii(text)
    assert (untold > 0) == (normalization == "nfc")


def test_only_marks_and_their_like_hide_what_nfc_makes_of_a_text() -> None:
    assert normalized_characters("A\u212b\u2126é語가", "nfc") == "AÅéΩ語가"
    assert normalized_characters("e\u0301", "nfc") is None
    assert normalized_characters("\u1100\u1161", "nfc") is None


def test_an_extended_vocabulary_is_sorted_and_has_everything_once() -> None:
    assert Vocabulary("bd").extended("dcab").characters == "abcd"
    assert Vocabulary("bd").extended("") == Vocabulary("bd")
    with pytest.raises(ValueError, match="surrogates"):
        Vocabulary("bd").extended("\ud800")


def test_the_first_unknown_character_is_named_with_its_position() -> None:
    with pytest.raises(
        UnknownCharacter, match=r"'é' \(U\+00E9, LATIN SMALL LETTER E WITH ACUTE\) at position 2"
    ) as raised:
        Vocabulary("abc").encode("abé?")
    assert (raised.value.character, raised.value.position) == ("é", 2)


@pytest.mark.parametrize("characters", ["", "ba", "aa", "a\ud800"])
def test_a_vocabulary_is_sorted_distinct_and_without_surrogates(characters: str) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary(characters)


def test_a_text_without_characters_has_no_vocabulary() -> None:
    with pytest.raises(EmptyText):
        Vocabulary.of(normalize_pieces(["\u0301", "\u0302" * 9], "letters"))


def test_reading_a_vocabulary_loads_no_numpy() -> None:
    # The service does no more than that, and is to start at once.
    script = (
        "import sys, models.checkpoint_header as h; h.Vocabulary('ab').known('a'); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
