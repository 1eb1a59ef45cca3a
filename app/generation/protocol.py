"""What the service and its generation process say to each other: JSON objects in frames, and the table of them.

Knows no sockets: bytes in, messages out. A frame is 4 bytes of length, most significant first, then a JSON object in
UTF-8. Invariant: however the bytes are cut, `Decoder` gives the messages that were encoded, in order.

To the process (`do`):
    begin    database_url, device    the first message; not arguments: every user of the machine can read those
    admit    rows, blob, characters (granted to each), request{prompt,unknown,max_characters,seed,temperature,top_k,
             top_p,min_p,repetition_penalty,presence_penalty,frequency_penalty,allowed_characters,forbidden_characters,
             stop, keep_state, start (a row's state in base64, or null)}: each row is a sample of it. Where they matter
             also prompts (in place of prompt: each a text or a list of indices in the vocabulary, for an equal share of
             the rows, in their order), echo (the prompt is a part of the text) and alternatives (scores are told, each
             with so many of the likeliest characters)
    score    rows (one), blob, request{unknown,top}, characters (granted, of the document that tells the scores)
    feed     row, text, last     a piece of the text to score, when the row wants one
    grant    row, characters     it may write so many more
    evict    row
    inspect  call, blob          is this a usable model file?
    count    call                how much is going on; also tells that the process is not hung

From the process (`is`):
    ready
    admitted  rows, and prompt_characters (of each prompt, as the network reads it) where they were asked to write
    wants     row                the next piece of the text that it is to score
    refused   rows or call, code, detail, and fields that explain it
    text      rows: [[row, text, null or {finish_reason, held_back, state (base64, or null)}, scores], ...]; scores only
              where they are told: [score, [[character, score], ...]] of each character of the text, then of those held
              back; null for the first of a prompt. They are log-probabilities of the network's own distribution (at
              temperature 1, before penalties and filters), from -9999 to 0
    failed    row, detail        in the midst of writing
    answer    call, value
"""

import json
from typing import Any

Message = dict[str, Any]

MAX_FRAME_BYTES = 256 * 1024 * 1024
"""The longest prompt that settings allow, escaped, takes half of it."""


class ProtocolError(ValueError):
    """The bytes are no frames of this protocol."""


def encode(message: Message) -> bytes:
    """The frame of a message."""
    body = json.dumps(message).encode()
    return len(body).to_bytes(4, "big") + body


class Decoder:
    """Collects bytes as they come."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete. Raises ProtocolError."""
        self._held += data
        messages: list[Message] = []
        begin = 0
        while (end := self._end_of_frame(begin)) is not None:
            messages.append(_parse(bytes(self._held[begin + 4 : end])))
            begin = end
        del self._held[:begin]
        return messages

    def _end_of_frame(self, begin: int) -> int | None:
        if len(self._held) < begin + 4:
            return None
        length = int.from_bytes(self._held[begin : begin + 4], "big")
        if length > MAX_FRAME_BYTES:
            raise ProtocolError(f"a frame of {length} bytes")
        end = begin + 4 + length
        return end if end <= len(self._held) else None


def _parse(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ProtocolError(str(error)) from None
    if not isinstance(message, dict):
        raise ProtocolError("a message that is no object")
    return message
