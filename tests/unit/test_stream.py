"""What waits in the service for a reader."""

import asyncio
import tracemalloc

from app.generation.stream import GRANTED_CHARACTERS, Stream

CHARACTER = "\U00010400"
"""Four bytes of memory."""


def test_text_that_comes_by_the_character_takes_the_memory_of_its_characters() -> None:
    stream = Stream(1, lambda _: None, asyncio.Event())
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(GRANTED_CHARACTERS):
        stream.take((CHARACTER * 2)[:1], None)  # a string of its own
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 2 * 4 * GRANTED_CHARACTERS
    assert stream.ready() == CHARACTER * GRANTED_CHARACTERS
