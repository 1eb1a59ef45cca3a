"""The limit of a request's head, in the bytes that it has on the wire."""

import h11
import pytest

from app.heads import BoundedHeads

MOST = 1000


def head(size: int) -> bytes:
    before, after = b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n"
    return before + b"x" * (size - len(before) - len(after)) + after


def takes(data: bytes, piece: int) -> bool:
    """Whether what comes in such pieces is taken for a request."""
    connection = BoundedHeads(MOST)
    for start in range(0, len(data), piece):
        connection.receive_data(data[start : start + piece])
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return False
        if isinstance(event, h11.Request):
            return True
    raise AssertionError("neither taken nor refused")


@pytest.mark.parametrize("piece", [1, 7, MOST, 10 * MOST])
def test_the_limit_is_the_same_however_a_head_is_cut(piece: int) -> None:
    assert takes(head(MOST), piece)
    assert not takes(head(MOST + 1), piece)


def test_a_body_behind_a_head_does_not_count() -> None:
    assert takes(head(MOST) + b"x" * 5 * MOST, 10 * MOST)


def test_blanks_count_though_they_are_no_part_of_a_value() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * MOST + b"x\r\n\r\n"
    assert not takes(data, len(data))
