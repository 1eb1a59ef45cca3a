"""How completions are answered: whole, or as server-sent events, in the same form.

Knows HTTP and streams. Invariants: rows are evicted when the answer ends, however it ends; a stream has neither `id`
nor `retry`, at which OpenAI's client breaks; one that broke off says so in place of `[DONE]`.
"""

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, NamedTuple

from fastapi.responses import JSONResponse, Response
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, Field
from starlette.types import Receive

from app.generation.streams import Samples, StreamFailed
from app.openai.completion_request import CompletionRequest
from app.openai.dialect import error_of
from app.routes.generation_responses import (
    STREAMED,
    RowResponse,
    broken_off,
    nobody_listens,
    or_silence,
    whole_texts,
)
from app.store.names import new_id

log = logging.getLogger(__name__)

DONE = "[DONE]"


class LogprobsDocument(BaseModel):
    """Log-probabilities, each list with an item for each character; null for the first of a prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] = Field(description="The likeliest ones, and the one that is there.")
    text_offset: list[int] = Field(description="Its place in the choice's text.")


class ChoiceDocument(BaseModel):
    """One text."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: LogprobsDocument | None


class UsageDocument(BaseModel):
    """Characters."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionDocument(BaseModel):
    """Texts, or a piece of them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str = Field(description="Id of the model.")
    system_fingerprint: str = Field(description="Id of the checkpoint that wrote, which can be asked for as `model`.")
    seed: int
    choices: list[ChoiceDocument]
    usage: UsageDocument | None


class Origin(NamedTuple):
    """What wrote a completion; with the request, enough to get the same again."""

    model: str
    checkpoint: str
    checkpoint_step: int
    seed: int

    def headers(self) -> dict[str, str]:
        """As `POST /generate` tells them."""
        told = {"X-Seed": str(self.seed), "X-Model": self.model, "X-Checkpoint-Step": str(self.checkpoint_step)}
        return told | STREAMED


class Completion:
    """What is said of some streams, whole or piece by piece."""

    def __init__(self, samples: Samples, asked: CompletionRequest, origin: Origin) -> None:
        self._samples = samples
        self._asked = asked
        self._offsets = [0] * len(samples.streams)
        self._head = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": origin.model,
            "system_fingerprint": origin.checkpoint,
            "seed": origin.seed,
        }

    def document(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """These choices, and what all documents of the completion have."""
        return {**self._head, "choices": choices, **more}

    def choice(self, index: int, text: str) -> dict[str, Any]:
        """What of one text follows on what was told of it before; all of it is taken from its stream already."""
        stream = self._samples.streams[index]
        finish_reason = stream.finish_reason if stream.over else None
        if finish_reason is not None:
            text += stream.held_back
        logprobs = self._logprobs(index, text) if self._asked.logprobs is not None else None
        self._offsets[index] += len(text)
        return {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": logprobs}

    def usage(self) -> dict[str, int]:
        """Characters of the prompts, each once, and of what was written."""
        read, echoed = sum(self._samples.prompt_characters), self._asked.each if self._asked.echo else 0
        written = sum(self._offsets) - read * echoed
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def _logprobs(self, index: int, text: str) -> dict[str, Any]:
        scores = self._samples.streams[index].scores(len(text))
        pairs = list(zip(text, scores, strict=True))
        return {
            "tokens": list(text),
            "token_logprobs": [score and score[0] for score in scores],
            "top_logprobs": [score and dict(score[1]) | {character: score[0]} for character, score in pairs],
            "text_offset": [self._offsets[index] + place for place in range(len(text))],
        }


class CompletionEvents(RowResponse):
    """A chunk for each piece of a text, with its reason at its end, then perhaps the usage, then `[DONE]`."""

    media_type = "text/event-stream"

    def __init__(self, samples: Samples, asked: CompletionRequest, origin: Origin) -> None:
        self._completion = Completion(samples, asked, origin)
        self._tells_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
        self._open = dict(enumerate(samples.streams))
        super().__init__(samples, origin.headers())

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            async for index, text in or_silence(self._samples):
                yield KEEPALIVE_COMMENT if text is None else self._chunk(index, text)
                for ending in self._endings():
                    yield ending
        except StreamFailed as error:
            log.warning("a stream broke off: %s", error)
            yield _event(error_of(broken_off(error).document()))
            return
        for ending in self._endings():
            yield ending
        if self._tells_usage:
            yield _event(self._completion.document([], usage=self._completion.usage()))
        yield format_sse_event(data_str=DONE)

    def _endings(self) -> Iterator[bytes]:
        """Last chunks of texts that are over, and were not told to be."""
        for index in [index for index, stream in self._open.items() if stream.over]:
            yield self._chunk(index, "")

    def _chunk(self, index: int, text: str) -> bytes:
        choice = self._completion.choice(index, text)
        if choice["finish_reason"] is not None:
            self._open.pop(index)
        # Where usage is told in the end, clients look for the field everywhere.
        return _event(self._completion.document([choice], **({"usage": None} if self._tells_usage else {})))


async def whole_completion(samples: Samples, asked: CompletionRequest, origin: Origin, receive: Receive) -> Response:
    """The whole texts, once they are complete. Raises Problem if one broke off."""
    completion = Completion(samples, asked, origin)
    texts = await whole_texts(samples, receive)
    if texts is None:
        return nobody_listens()
    choices = [completion.choice(index, text) for index, text in enumerate(texts)]
    return JSONResponse(completion.document(choices, usage=completion.usage()), headers=origin.headers())


def _event(document: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(document, ensure_ascii=False))
