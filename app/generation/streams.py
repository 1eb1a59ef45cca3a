"""The service's side of generation: opens streams, hands on their text, keeps the generation process running.

No torch here, and nothing that blocks: all of it belongs to the event loop. Invariants: a stream holds at most the
characters that it granted; an evicted stream holds a place neither here nor in the process; when the process dies,
every stream that it wrote for is told, and the process is started again.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app import logs
from app.generation.link import Link
from app.generation.protocol import Message, ProtocolError
from app.generation.stream import (
    GenerationRefused,
    GenerationUnavailable,
    Holder,
    Samples,
    Stream,
    StreamFailed,
    TooManyStreams,
    granted_characters,
)
from app.settings import Settings

__all__ = [
    "Generation",
    "GenerationRefused",
    "GenerationUnavailable",
    "Holder",
    "Samples",
    "Stream",
    "StreamFailed",
    "TooManyStreams",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds what may take."""

    request: float = 30.0
    """How long a request waits for a process that is being started."""
    start: float = 120.0
    """How long a process may take to be ready: importing torch from a cold disk takes its time."""
    admit: float = 60.0
    """How long a request, once there is a process, waits for its model to be loaded."""
    ping: float = 5.0
    """How often the process is asked to say something."""
    silent: float = 15.0
    """A process that said nothing for so long is not alive ..."""
    hung: float = 60.0
    """... and after so long it is ended. It answers between any two steps; one of the largest network takes seconds."""


SETTLED_SECONDS = 10.0
"""A process that lived so long is started again at once when it dies."""
LONGEST_DELAY_SECONDS = 10.0
SLOWEST_READING = 20_000
"""Characters of a text to score in a second, before it is admitted, beside as many others as there may be."""


class Generation:
    """The generation process through all its restarts, and the open streams."""

    def __init__(self, settings: Settings, database_url: str, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._beginning = {
            "do": "begin",
            "database_url": database_url,
            "device": settings.generation_device,
            "precision": settings.generation_precision,
        }
        self._compiled_dir = settings.compiled_dir
        self._log = {logs.LEVEL: settings.log_level, logs.FORMAT: settings.log_format}
        self._max_streams = settings.max_streams
        self._reader_seconds = settings.reader_seconds
        self._ids = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        self._samples: dict[int, Samples] = {}  # by the streams that are open
        self._holders: dict[int, str] = {}  # of the streams that are somebody's
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._link: Link | None = None  # while the process is ready
        self._ready = asyncio.Event()
        self._heard_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process in the background; the first stream waits for it."""
        self._task = asyncio.create_task(self._keep_running(), name="generation")

    async def stop(self) -> None:
        """End the process and every stream."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @property
    def alive(self) -> bool:
        """Whether the process is ready and has lately said something. From any thread."""
        return self._link is not None and time.monotonic() - self._heard_at < self._patience.silent

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it was started in; its methods belong to no other."""
        return self._task.get_loop() if self._task else None

    @property
    def pid(self) -> int | None:
        """The process that is ready now."""
        return self._link.pid if self._link else None

    @property
    def open_streams(self) -> int:
        """How many streams hold a place, being admitted included."""
        return len(self._streams)

    @property
    def waiting_streams(self) -> int:
        """How many of them wait to be admitted: for the process, or for their model to be loaded."""
        return sum(not samples.admitted.done() for samples in self._samples.values())

    def full(self, number: int = 1, holder: Holder | None = None) -> TooManyStreams | None:
        """Why so many streams cannot be opened at the moment; None if they can."""
        if holder is not None and holder.max_streams is not None:
            held = sum(whose == holder.id for whose in self._holders.values())
            if held + number > holder.max_streams:
                return TooManyStreams(holder.max_streams, held, number, of_holder=True)
        if len(self._streams) + number > self._max_streams:
            return TooManyStreams(self._max_streams, len(self._streams), number)
        return None

    def hold_places(self, number: int = 1, holder: Holder | None = None) -> Samples:
        """Streams that are yet to be admitted, and must be evicted in the end. Raises TooManyStreams.

        Costs nothing: hold places before anything that does, so that a crowd is refused at once.
        """
        if (full := self.full(number, holder)) is not None:
            raise full
        changed = asyncio.Event()
        samples = Samples(
            [Stream(next(self._ids), self._forget, changed) for _ in range(number)], changed, self._reader_seconds
        )
        for stream in samples.streams:
            self._streams[stream.id], self._samples[stream.id] = stream, samples
            if holder is not None:
                self._holders[stream.id] = holder.id
        return samples

    async def admit(self, samples: Samples, blob_id: str, request: Message) -> None:
        """The streams begin, and belong to the weights in `blob_id`; `request` as in the protocol.

        Raises GenerationRefused, GenerationUnavailable; then, or if it is cancelled, the streams are evicted.
        """
        characters = granted_characters(request.get("alternatives"))
        message = {"blob": blob_id, "request": request, "characters": characters}
        await self._begin(samples, lambda link: samples.admit(link, message), self._patience.admit)

    async def score(self, samples: Samples, blob_id: str, text: str, request: Message) -> None:
        """As `admit`, of one stream whose text is a document: the fields that tell the scores, ready to end an
        object."""
        message = {"blob": blob_id, "request": request}
        patience = self._patience.admit + len(text) / SLOWEST_READING
        await self._begin(samples, lambda link: samples.score(link, text, message), patience)

    async def _begin(self, samples: Samples, ask: Callable[[Link], None], seconds: float) -> None:
        try:
            link = await self._ready_link()
            ask(link)
            async with asyncio.timeout(seconds):
                await samples.admitted
        except TimeoutError:
            samples.evict()
            raise GenerationUnavailable("the model could not be loaded, or the text not be read, in time") from None
        except BaseException:
            samples.evict()
            raise

    async def inspect(self, blob_id: str) -> dict[str, Any]:
        """What the model file in a blob holds, after loading it. Raises GenerationRefused, GenerationUnavailable."""
        described: dict[str, Any] = await self._call({"do": "inspect", "blob": blob_id})
        return described

    async def counts(self) -> dict[str, int]:
        """What the process holds: rows, models, how often one was loaded, model_bytes, characters written.

        Raises GenerationUnavailable.
        """
        counted: dict[str, int] = await self._call({"do": "count"})
        return counted

    def end_streams(self, reason: str) -> None:
        """Every open stream fails with this reason, as when the service shuts down."""
        for samples in list(self._samples.values()):
            samples.fail(StreamFailed(reason))

    async def _call(self, message: Message) -> Any:
        link, call = await self._ready_link(), next(self._ids)
        answer = self._calls[call] = asyncio.get_running_loop().create_future()
        try:
            link.say(message | {"call": call})
            async with asyncio.timeout(self._patience.admit):
                return await answer
        except TimeoutError:
            raise GenerationUnavailable("the generation process did not answer in time") from None
        finally:
            del self._calls[call]

    async def _ready_link(self) -> Link:
        if self._link is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience.request):
                    await self._ready.wait()
        if self._link is None or not self.alive or self._link.clogged:
            raise GenerationUnavailable("the generation process is not running; it is being started again")
        return self._link

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        self._samples.pop(stream.id, None)
        self._holders.pop(stream.id, None)

    async def _keep_running(self) -> None:
        delay = 0.0
        while True:
            started_at = time.monotonic()
            reason = "it could not be started"
            try:
                reason = await self._run_once()
            except OSError:
                log.exception("the generation process could not be started")
            settled = time.monotonic() - started_at > SETTLED_SECONDS
            delay = 0.0 if settled else min(LONGEST_DELAY_SECONDS, 2 * delay + 0.1)
            log.error("the generation process ended (%s), is started again in %.1f s", reason, delay)
            await asyncio.sleep(delay)

    async def _run_once(self) -> str:
        """Why the process, started now, ended."""
        link = await Link.start(self._compiled_dir, self._log)
        link.say(self._beginning)
        pings = asyncio.create_task(self._ping(link))
        try:
            return await self._listen(link)
        finally:
            pings.cancel()
            self._link = None
            self._ready.clear()
            self._fail_all(link)
            # Shielded: also when the service stops, no process may stay behind.
            await asyncio.shield(asyncio.create_task(link.end()))

    async def _listen(self, link: Link) -> str:
        while True:
            limit = self._patience.hung if self._link else self._patience.start
            try:
                async with asyncio.timeout(limit):
                    messages = await link.hear()
            except TimeoutError:
                return f"it said nothing for {limit:g} s"
            except (OSError, ProtocolError) as error:
                return str(error)
            self._heard_at = time.monotonic()
            for message in messages:
                self._heed(link, message)

    async def _ping(self, link: Link) -> None:
        while True:
            await asyncio.sleep(self._patience.ping)
            link.say({"do": "count", "call": 0})

    def _heed(self, link: Link, message: Message) -> None:
        match message["is"]:
            case "ready":
                self._link = link
                self._ready.set()
            case "text":
                for stream_id, text, ending, *scores in message["rows"]:
                    if stream := self._streams.get(stream_id):
                        stream.take(text, ending, *scores)
            case "admitted":
                for samples in self._samples_of(message):
                    samples.set_admitted(message.get("prompt_characters", ()))
            case "wants":
                if stream := self._streams.get(message["row"]):
                    stream.feed()
            case "refused":
                self._refuse(message)
            case "failed":
                if stream := self._streams.get(message["row"]):
                    stream.fail(StreamFailed(message["detail"]))
            case "answer":
                if (call := self._calls.get(message["call"])) and not call.done():
                    call.set_result(message["value"])

    def _refuse(self, message: Message) -> None:
        fields = {key: value for key, value in message.items() if key not in ("is", "rows", "call", "code", "detail")}
        refused = GenerationRefused(message["code"], message["detail"], **fields)
        for samples in self._samples_of(message):
            samples.fail(refused)
        if (call := self._calls.get(message.get("call", 0))) and not call.done():
            call.set_exception(refused)

    def _samples_of(self, message: Message) -> set[Samples]:
        """Those that rows of a message belong to, as far as they are open."""
        return {self._samples[row] for row in message.get("rows", ()) if row in self._samples}

    def _fail_all(self, link: Link) -> None:
        for samples in list(self._samples.values()):
            if samples.streams[0].link is link:
                samples.fail(StreamFailed("the generation process ended"))
        for call in self._calls.values():
            if not call.done():
                call.set_exception(GenerationUnavailable("the generation process ended"))
