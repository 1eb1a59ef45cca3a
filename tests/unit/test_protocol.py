"""Frames between the service and its generation process: however the bytes are cut, the messages come out."""

import random

import pytest

from app.generation.protocol import Decoder, Message, ProtocolError, encode

MESSAGES: list[Message] = [
    {"is": "ready"},
    {"is": "text", "rows": [[1, "line\nfeed\x00 é 日 😀", None], [2, "", "stop"]]},
    {"do": "admit", "request": {"prompt": "x" * 10_000}},
    {},
]


def test_messages_come_out_however_the_bytes_are_cut() -> None:
    data = b"".join(encode(message) for message in MESSAGES)
    rng = random.Random(1)
    for _ in range(50):
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 30)))
        decoder, got = Decoder(), list[Message]()
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            got += decoder.feed(data[begin:end])
        assert got == MESSAGES


def test_a_frame_is_four_bytes_of_length_and_json() -> None:
    assert encode({"a": 1}) == b'\x00\x00\x00\x08{"a": 1}'


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x01{", b"\0\0\0\1\xff"])
def test_bytes_that_are_no_frames_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(data)
