"""Uploaded bytes are a text, or it is said what is wrong and where."""

import random
import time
from collections.abc import Iterator

import pytest

from app.store.text_check import NotText, TextCheck


def check(data: bytes, size: int = 7) -> tuple[bytes, TextCheck]:
    text = TextCheck()
    return b"".join(text.checked(pieces(data, size))), text


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 10_000])
@pytest.mark.parametrize(
    "text", ["ab", "aaaa", "a\r\nb\r\n", f"{FAMILY} e\u0301 é 你好, мир\u2028!", "\U0010ffff\x01" * 50]
)
def test_valid_text_passes_unchanged_and_is_counted_however_it_is_cut(text: str, size: int) -> None:
    stored, counted = check(text.encode(), size)
    assert stored.decode() == text
    assert counted.characters == len(text)
    assert len(counted.different) == len(set(text))
    assert counted.different.in_order() == "".join(sorted(set(text)))
    assert counted.preview == text[:200]


def test_characters_of_all_unicode_are_counted_right() -> None:
    some = random.Random(1)
    points = [p for p in some.choices(range(1, 0x110000), k=30_000) if not 0xD800 <= p <= 0xDFFF]
    text = "".join(map(chr, points)) * 2
    _, counted = check(text.encode(), 4096)
    assert (counted.characters, len(counted.different)) == (len(text), len(set(text)))


def seconds_to_check(distinct: int) -> float:
    """Of this thread's own time, for as many characters from beyond the basic plane; the best of three."""
    some = random.Random(2)
    data = "".join(chr(0x20000 + some.randrange(distinct)) for _ in range(400_000)).encode()
    taken = []
    for _ in range(3):
        begin = time.thread_time()
        check(data, 1 << 16)
        taken.append(time.thread_time() - begin)
    return min(taken)


def test_a_text_costs_as_much_with_many_distinct_characters_as_with_few() -> None:
    assert seconds_to_check(5_000) < 10 * seconds_to_check(10)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_byte_order_mark_of_utf8_is_dropped(size: int) -> None:
    stored, counted = check("\ufeffhello".encode(), size)
    assert (stored, counted.characters) == (b"hello", 5)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"abc\xffdef", 3),
        (b"\xef\xbb\xbfabc\xff", 6),
        ("你好".encode()[:-1], 3),
        (b"ab\xc0\x80", 2),
        (b"ab\xed\xa0\x80cd", 2),
        (b"ab\xf4\x90\x80\x80", 2),
        (b"\x80abc", 0),
        (b"caf\xe9 au lait", 3),
    ],
)
def test_invalid_utf8_is_refused_with_the_offset_of_its_byte(data: bytes, offset: int, size: int) -> None:
    with pytest.raises(NotText, match=f"not UTF-8: byte 0x{data[offset]:02x} at byte {offset}") as refused:
        check(data, size)
    assert refused.value.offset == offset


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_nul_character_is_refused_with_its_offset(size: int) -> None:
    with pytest.raises(NotText, match="NUL character at byte 5") as refused:
        check(b"hello\x00world\xff", size)
    assert refused.value.offset == 5


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("size", [1, 100])
def test_a_text_in_utf16_or_utf32_is_told_so(encoding: str, size: int) -> None:
    mark = "" if encoding in {"utf-16", "utf-32"} else "\ufeff"
    with pytest.raises(NotText, match=f"the text is UTF-{encoding[4:6]} "):
        check(f"{mark}hello".encode(encoding), size)


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "empty"), (b"\xef\xbb\xbf", "empty"), (b"a", "one character"), ("你".encode(), "one")]
)
def test_a_text_of_no_or_one_character_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(NotText, match=said):
        check(data)
