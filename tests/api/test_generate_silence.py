"""What server-sent events say while a row says nothing."""

import asyncio
from typing import Any, cast

import pytest
from starlette.types import Message

from app.generation.streams import Samples
from app.routes import generation_responses
from app.routes.generation_responses import Events, Told
from tests.api.generating import unsigned


class Parked:
    """A stream that reads a long prompt, then writes two letters."""

    finish_reason = "length"
    characters = 2
    held_back = ""
    state = None
    reader_seconds = 30.0

    def __init__(self, silent_until: asyncio.Event) -> None:
        self._silent_until = silent_until
        self._texts = ["a", "b"]

    def __aiter__(self) -> "Parked":
        return self

    @property
    def streams(self) -> tuple["Parked"]:
        return (self,)

    async def __anext__(self) -> tuple[int, str]:
        await self._silent_until.wait()
        if not self._texts:
            raise StopAsyncIteration
        return 0, self._texts.pop(0)

    def evict(self) -> None:
        pass


async def chunks_of_a_parked_stream() -> list[bytes]:
    """The body's chunks; the stream begins to write after the second one that came in its silence."""
    speak, chunks = asyncio.Event(), []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            chunks.append(message["body"])
            if len(chunks) == 2:
                speak.set()

    scope: dict[str, Any] = {"type": "http", "asgi": {"spec_version": "2.4"}}
    async with asyncio.timeout(20):
        await Events(cast(Samples, Parked(speak)), Told(1, "model", 1, unsigned))(scope, receive, send)
    return chunks


def test_silence_is_filled_with_comments_which_no_reader_takes_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_responses, "SILENT_SECONDS", 0.01)
    silent, rest = _split(asyncio.run(chunks_of_a_parked_stream()))

    assert len(silent) >= 2
    for chunk in silent:
        assert chunk.startswith(b":"), "a comment, by the standard"
        assert chunk.endswith(b"\n\n"), "or the next event would be joined to it"
        assert chunk.count(b"\n") == 2
    assert [chunk.split(b"\n")[0] for chunk in rest] == [b'data: {"text": "a"}', b'data: {"text": "b"}', b"event: done"]


def _split(chunks: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What came before the first text, and the rest."""
    first = next(index for index, chunk in enumerate(chunks) if b"text" in chunk)
    return chunks[:first], chunks[first:]
