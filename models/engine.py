"""Generation: rows that read a prompt and write a text, all advanced together by one synchronous `step`.

Knows no network, connection, process or store. A row's whole past is its state: a row that is set aside is its state
and costs nothing, and rows join and leave between two steps (continuous batching). Invariant: what a row writes depends
on the weights and its request alone, never on other rows, nor on when it was admitted, set aside or granted more.

Shape suffixes: T time steps, R rows, L layers, P parts of a layer's state, H hidden.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoint_header import CheckpointInfo
from models.sampling import SamplingConfig, noise_key
from models.stop_strings import StopStrings
from models.vocabulary import Vocabulary, normalize

FinishReason = Literal["stop", "length"]

TURN_SECONDS = 0.002
"""About so long one call writes, and one call reads of a prompt: a row that is evicted, or comes, waits no longer."""
SHORTEST_SECONDS = 1e-6
"""A clock may stand still meanwhile."""
MOST_STEPS = 64
NOT_FINITE = "the network's answer is not finite"


class Stepper(Protocol):
    """models.stepper, as far as it is needed here."""

    @property
    def empty_state(self) -> Tensor:
        """That of a row which has read nothing [L, P, H]."""

    def join(
        self, state_LPH: Tensor, last_id: int, sampling: SamplingConfig, noise_key: int, position: int
    ) -> None: ...

    def leave(self, place: int) -> Tensor: ...

    def write(self, steps: int) -> NDArray[np.int64]: ...

    def read(self, state_LPH: Tensor, ids_T: NDArray[np.int64]) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class RowRequest:
    """What a row shall write. Its seed is 0 or more; the noise is the same for equal seeds."""

    prompt: str = ""
    max_characters: int = 500
    seed: int = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop: tuple[str, ...] = ()
    skip_unknown: bool = False
    """Leave out what the network does not know of the prompt, instead of refusing it."""


@dataclass(frozen=True, slots=True)
class RowOutput:
    """What a row wrote in a step, before it failed if it did. After `finished` or `failed` is told, the row is gone."""

    row_id: int
    text: str
    finished: FinishReason | None = None
    failed: str | None = None


class Engine:
    """The rows of one loaded model. All methods belong to one thread."""

    def __init__(self, stepper: Stepper, info: CheckpointInfo, clock: Callable[[], float] = time.perf_counter) -> None:
        self.info = info
        self._stepper = stepper
        self._clock = clock
        self._rows: dict[int, _Row] = {}
        self._writing: list[_Row] = []  # by their place in the stepper
        self._reading: deque[_Row] = deque()  # with more prompt to read
        self._step_seconds = self._read_seconds = TURN_SECONDS  # of a step, of a character of a prompt

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do: some row is not set aside."""
        return bool(self._writing or self._reading)

    def admit(self, row_id: int, request: RowRequest, allowance: float = math.inf) -> None:
        """A row joins the next step. It is set aside when it has written `allowance` characters, until `grant`.

        The prompt is normalized as the network's texts were. Raises UnknownCharacter, with the position therein,
        unless such are to be skipped.
        """
        assert row_id not in self._rows, "row ids are used once"
        row = self._rows[row_id] = _Row(row_id, request, self.info, self._stepper.empty_state, allowance)
        if row.unread:
            self._reading.append(row)
        else:
            self._join(row)

    def grant(self, row_id: int, characters: int) -> None:
        """The row may write so many more. Does nothing if the row is gone."""
        if row := self._rows.get(row_id):
            row.allowance += characters
            if not row.unread and row.place is None:
                self._join(row)

    def evict(self, row_id: int) -> None:
        """The row is gone, whatever it was doing. Does nothing if it is already."""
        if row := self._rows.pop(row_id, None):
            self._set_aside(row)
            if row.unread:
                self._reading.remove(row)

    def step(self) -> list[RowOutput]:
        """Rows that are not set aside write some characters, all as many, and one row reads some of its prompt.

        Each takes `TURN_SECONDS`, about, and reading no longer than writing did. Rows with nothing to show yet are left
        out.
        """
        outputs, seconds = self._write() if self._writing else ([], TURN_SECONDS)
        if self._reading:
            self._read_one(seconds)
        return outputs

    def _write(self) -> tuple[list[RowOutput], float]:
        """What rows have to show, and the seconds that it took."""
        steps, began = self._steps(), self._clock()
        drawn_TR = self._stepper.write(steps)
        seconds = max(self._clock() - began, SHORTEST_SECONDS)
        self._step_seconds = seconds / steps
        outputs = []
        for row, ids in zip(list(self._writing), drawn_TR.T.tolist(), strict=True):
            output = row.take(ids)
            if output.finished or output.failed:
                self.evict(row.id)
            elif row.allowance <= 0:
                self._set_aside(row)
            if output.text or output.finished or output.failed:
                outputs.append(output)
        return outputs, seconds

    def _steps(self) -> int:
        """As many as every row may write, one where a row waits for its first character."""
        most = min(MOST_STEPS, int(TURN_SECONDS / self._step_seconds))
        return max(1, min(most, *(row.most_steps for row in self._writing)))

    def _read_one(self, seconds: float) -> None:
        """Readers take turns, so that a short prompt is not kept waiting by a long one."""
        row = self._reading.popleft()
        piece, began = row.next_piece(max(1, int(min(seconds, TURN_SECONDS) / self._read_seconds))), self._clock()
        row.state_LPH = self._stepper.read(row.state_LPH, piece)
        self._read_seconds = max(self._clock() - began, SHORTEST_SECONDS) / len(piece)
        if row.unread:
            self._reading.append(row)
        else:
            self._join(row)

    def _join(self, row: "_Row") -> None:
        if row.allowance > 0:
            row.place = len(self._writing)
            self._writing.append(row)
            self._stepper.join(row.state_LPH, row.last_id, row.request.sampling, row.noise_key, row.written)

    def _set_aside(self, row: "_Row") -> None:
        if row.place is not None:
            row.state_LPH = self._stepper.leave(row.place)
            last = self._writing.pop()
            if last is not row:  # as in the stepper
                self._writing[row.place], last.place = last, row.place
            row.place = None


class _Row:
    """One text in the making: its state, what it has still to read, how much it may still write."""

    def __init__(
        self, row_id: int, request: RowRequest, info: CheckpointInfo, state_LPH: Tensor, allowance: float
    ) -> None:
        self.id = row_id
        self.request = request
        self.state_LPH = state_LPH
        """As of when it is not among those that write."""
        self.place: int | None = None
        self.allowance = allowance
        self.written = 0
        self.noise_key = noise_key(request.seed, 0)
        self._characters = info.vocabulary.characters
        prompt = normalize(request.prompt, info.config.normalization)
        if request.skip_unknown:
            prompt = info.vocabulary.known(prompt)
        self._prompt = info.vocabulary.encode(prompt or beginning(info.vocabulary)).astype(np.int64)
        self._read = 0
        self.last_id = int(self._prompt[-1])  # read by the step that writes the first character
        # As the prompt: under `letters` an `E` never comes.
        self._stops = StopStrings([normalize(stop, info.config.normalization) for stop in request.stop])

    @property
    def unread(self) -> bool:
        return self._read < len(self._prompt) - 1

    @property
    def most_steps(self) -> int:
        """That it may write at once: up to its end or allowance; the first alone, so that it is shown at once."""
        if not self.written:
            return 1
        return int(min(self.request.max_characters - self.written, self.allowance))

    def next_piece(self, characters: int) -> NDArray[np.int64]:
        before = self._read
        self._read = min(before + characters, len(self._prompt) - 1)
        return self._prompt[before : self._read]

    def take(self, ids: Sequence[int]) -> RowOutput:
        """What there is to show after the drawn characters."""
        pieces: list[str] = []
        finished: FinishReason | None = None
        failed = None
        for drawn in ids:  # what follows the end was drawn for nothing
            if drawn < 0:
                failed = NOT_FINITE
                break
            self.last_id = drawn
            self.written += 1
            piece, stopped = self._stops.feed(self._characters[drawn])
            pieces.append(piece)
            if stopped:
                finished = "stop"
                break
        if not finished and self.written == self.request.max_characters:
            finished = "length"
            pieces.append(self._stops.rest())
        text = "".join(pieces)
        self.allowance -= len(text)
        return RowOutput(self.id, text, finished, failed)


def beginning(vocabulary: Vocabulary) -> str:
    """What is read in place of an empty prompt: a line feed, as at a line's beginning, else a space, else the first
    character of the vocabulary. Always the same, so that an empty prompt and a seed give one text."""
    return next((c for c in "\n " if c in vocabulary), vocabulary.characters[0])
