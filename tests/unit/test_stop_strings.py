"""Stop strings: found wherever they are, shown never, not even in part."""

import random

import pytest

from models.stop_strings import StopStrings


def fed(text: str, stops: list[str]) -> tuple[list[str], bool]:
    """Everything shown, piece by piece, and whether a stop string ended the text."""
    watch, shown = StopStrings(stops), []
    for character in text:
        piece, stopped = watch.feed(character)
        shown.append(piece)
        if stopped:
            return shown, True
    return [*shown, watch.rest()], False


def first_end(text: str, stops: list[str]) -> str | None:
    """The slow reference: the text before the stop string that is complete first, the longest of those."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return None


def test_any_text_ends_where_the_slow_reference_ends_it() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        stops = ["".join(rng.choices("ab", k=rng.randint(1, 5))) for _ in range(rng.randint(1, 3))]
        text = "".join(rng.choices("abc", k=rng.randint(0, 20)))
        expected = first_end(text, stops)
        shown, stopped = fed(text, stops)
        assert "".join(shown) == (text if expected is None else expected), (text, stops)
        assert stopped == (expected is not None)


def test_what_is_shown_is_never_the_beginning_of_a_stop_string() -> None:
    shown, stopped = fed("one EN two END", ["END"])
    assert stopped
    assert shown == ["o", "n", "e", " ", "", "", "EN ", "t", "w", "o", " ", "", "", ""]


@pytest.mark.parametrize("stops", [[], [""]])
def test_without_stop_strings_every_character_is_shown_at_once(stops: list[str]) -> None:
    assert fed("abc", stops) == (["a", "b", "c", ""], False)


def test_held_back_text_is_shown_when_the_text_ends_otherwise() -> None:
    assert fed("so EN", ["END"]) == (["s", "o", " ", "", "", "EN"], False)
