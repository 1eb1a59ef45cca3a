"""Characters <-> ids, and what is done to a text before.

Knows no torch. A character is one Unicode code point. Invariant: `decode(encode(normalize(text)))` is `normalize(text)`
for every text over the vocabulary's characters; the order of ids is the order of code points, in every process.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from models.config import NORMALIZATIONS, InvalidConfig, Normalization

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_HELD = 8192


class EmptyText(ValueError):
    """A text has no characters, perhaps because its normalization left none."""


class UnknownCharacter(ValueError):
    """A text holds a character that the vocabulary does not. `character` is it, `position` its index in the text."""

    def __init__(self, character: str, position: int) -> None:
        name = unicodedata.name(character, "no name")
        super().__init__(
            f"character {character!r} (U+{ord(character):04X}, {name}) at position {position} is not known"
        )
        self.character = character
        self.position = position


class UnknownId(ValueError):
    """A number that is no character's index in the vocabulary."""


def normalize(text: str, normalization: Normalization) -> str:
    """The text as the vocabulary meets it.

    `letters` is the tutorial's preparation: accents stripped, lower case, every run of other characters one space.
    """
    if normalization == "nfc":
        return unicodedata.normalize("NFC", text)
    if normalization == "letters":
        return _squeeze(text.translate(_LETTERS))
    if normalization not in NORMALIZATIONS:
        raise InvalidConfig("normalization", f"must be one of {', '.join(NORMALIZATIONS)}, not {normalization!r}")
    return text


class _Letters(dict[int, str]):
    """What `letters` makes of each code point, before runs of spaces are squeezed; found out when it first occurs.

    One by one is enough: decomposing puts marks in another order, but they all go, and letters do not depend on their
    neighbours. Twice (Russian) to thirteen times (English) as fast as decomposing the text.
    """

    def __missing__(self, point: int) -> str:
        bare = unicodedata.normalize("NFKD", chr(point)).lower()
        self[point] = "".join(c if "a" <= c <= "z" else " " for c in bare if not unicodedata.combining(c))
        return self[point]


_LETTERS = _Letters()


def _squeeze(text: str) -> str:
    """One space for every run of them; borders keep theirs, so that a prompt's last space counts."""
    while "  " in text:
        text = text.replace("  ", " ")
    return text


def normalize_pieces(pieces: Iterable[str], normalization: Normalization) -> Iterator[str]:
    """The normalized text of a text that comes in pieces; joined, it is `normalize` of the joined pieces."""
    normalizer = Normalizer(normalization)
    for piece in pieces:
        yield normalizer.feed(piece)
    yield normalizer.end()


class Normalizer:
    """Normalizes a text that comes in pieces: what `feed` gives, and in the end `end`, is `normalize` of the whole.

    In NFC it is cut anew, and only before characters that compose with nothing before them. So a piece may be held back
    until one comes; almost every character is one, combining marks are not. After more marks than any writing has it is
    cut all the same: the time of composing grows with their square (16,000 take 0.2 s).
    """

    def __init__(self, normalization: Normalization) -> None:
        self._normalization = normalization
        self._held = ""
        self._last = ""

    def feed(self, piece: str) -> str:
        """What is certain now, perhaps nothing."""
        if self._normalization == "nfc":
            return self._composed(piece)
        ready = normalize(piece, self._normalization)
        if self._normalization == "letters" and self._last == " ":
            ready = ready.removeprefix(" ")
        self._last = ready[-1:] or self._last
        return ready

    def end(self) -> str:
        """What was held back."""
        return normalize(self._held, self._normalization)

    def _composed(self, piece: str) -> str:
        cut = _last_boundary(piece)
        if cut < 0:
            if len(self._held) < MOST_HELD:
                self._held += piece
                return ""
            cut = 0
        ready, self._held = self._held + piece[:cut], piece[cut:]
        return normalize(ready, "nfc")


def _last_boundary(text: str) -> int:
    """Index of the last character before which a text may be cut, -1 if there is none."""
    for index in range(len(text) - 1, -1, -1):
        if _begins_anew(text[index]):
            return index
    return -1


def _begins_anew(character: str) -> bool:
    """Whether no normalization joins the character to what stands before it (Unicode's annex 15: a boundary).

    Nothing below U+0300 is joined; above, only marks are, the vowels and finals of conjoining Hangul, and Kirat Rai's.
    """
    if character < "\u0300":
        return True
    joins = "\u1160" <= character <= "\u11ff" or "\U00016d63" <= character <= "\U00016d6a"
    return not joins and unicodedata.category(character)[0] != "M"


def normalized_characters(characters: str, normalization: Normalization) -> str | None:
    """The characters, sorted, of a normalized text that has these; None where it depends on their order in the text.

    Only composing looks at neighbours: a text whose every character begins anew is normalized one by one.
    """
    if normalization == "nfc":
        if not all(map(_begins_anew, characters)):
            return None
        characters = "".join(normalize(character, normalization) for character in characters)
    return "".join(sorted(set(normalize(characters, normalization))))


class Vocabulary:
    """The ordered list of characters that a network knows: strictly ascending code points, no surrogates."""

    def __init__(self, characters: Sequence[str]) -> None:
        points = [ord(c) for c in characters]
        if not points:
            raise ValueError("a vocabulary needs at least one character")
        if any(a >= b for a, b in pairwise(points)):
            raise ValueError("a vocabulary's characters must be distinct and sorted by code point")
        if any(0xD800 <= p <= 0xDFFF for p in points):
            raise ValueError("a vocabulary cannot hold surrogates")
        self._characters = "".join(characters)

    @classmethod
    def of(cls, pieces: Iterable[str]) -> "Vocabulary":
        """The vocabulary of a text that comes in pieces, already normalized. Raises EmptyText."""
        seen: set[str] = set()
        for piece in pieces:
            seen.update(piece)
        if not seen:
            raise EmptyText("the text has no characters")
        return cls(sorted(seen))

    def extended(self, characters: Iterable[str]) -> "Vocabulary":
        """This vocabulary and what it lacks of `characters`; sorted as ever, so old characters may have other ids."""
        return Vocabulary(sorted({*self._characters, *characters}))

    @property
    def characters(self) -> str:
        """All characters in the order of their ids: `characters[id]`."""
        return self._characters

    def __len__(self) -> int:
        return len(self._characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._characters == other._characters

    def __hash__(self) -> int:
        return hash(self._characters)

    def __contains__(self, character: str) -> bool:
        return len(character) == 1 and character in self._characters

    @cached_property
    def _points(self) -> "NDArray[np.uint32]":
        import numpy as np

        return np.array([ord(c) for c in self._characters], dtype=np.uint32)

    def encode(self, text: str) -> "NDArray[np.int32]":
        """Ids of a normalized text, int32 [len(text)]. Raises UnknownCharacter for the first one not known."""
        import numpy as np  # the service reads vocabularies and encodes nothing: it starts 80 ms sooner without

        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        ids = np.searchsorted(self._points, points).astype(np.int32)
        np.minimum(ids, len(self) - 1, out=ids)
        wrong = np.flatnonzero(self._points[ids] != points)
        if wrong.size:
            position = int(wrong[0])
            raise UnknownCharacter(text[position], position)
        return ids

    def check_ids(self, ids: Sequence[int]) -> None:
        """Return if each is the index of a character. Raises UnknownId for the first one that is none."""
        for position, number in enumerate(ids):
            if not 0 <= number < len(self):
                raise UnknownId(
                    f"{number} at position {position} is no character's index: the model knows {len(self)} characters, "
                    f"0 to {len(self) - 1}"
                )

    def known(self, text: str) -> str:
        """The text without the characters that the vocabulary has not."""
        characters = set(self._characters)
        return "".join(c for c in text if c in characters)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return "".join(self._characters[i] for i in ids)
