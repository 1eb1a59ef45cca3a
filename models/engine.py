"""Generation: rows that read a prompt and write a text, all advanced by one synchronous `step`.

Knows no network connection, process or store. A row's whole past is its state, so a row costs nothing while it is set
aside. This version steps one row after the other. Invariant: what a row writes depends on the weights and its request
alone, never on other rows, nor on when it was admitted, set aside or granted more.

Shape suffixes: B rows (here 1), T time steps, V vocabulary, L layers, P parts of a layer's state, H hidden.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from models.checkpoint_header import CheckpointInfo
from models.rnn import CharRNN
from models.sampling import NotFinite, SamplingConfig, draw, noise_key, uniform
from models.stop_strings import StopStrings
from models.vocabulary import Vocabulary, normalize

FinishReason = Literal["stop", "length"]

PRIME_CHARACTERS = 128
"""A prompt is read in pieces of this length, cut at its multiples and nowhere else: products over another number of
steps round otherwise. GRU 1x512: 130 us a character, so other rows wait 17 ms at most."""


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
    """What a row wrote in a step. After `finished` or `failed` is told, the row is gone."""

    row_id: int
    text: str
    finished: FinishReason | None = None
    failed: str | None = None


class Engine:
    """The rows of one loaded model. All methods belong to one thread."""

    def __init__(self, network: CharRNN, info: CheckpointInfo) -> None:
        self.info = info
        self._network = network.eval()
        self._device = next(network.parameters()).device
        self._rows: dict[int, _Row] = {}
        self._priming: deque[int] = deque()  # ids of rows with more prompt to read; may hold evicted ones

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do: some row is not set aside."""
        return any(row.unread or row.allowance > 0 for row in self._rows.values())

    def admit(self, row_id: int, request: RowRequest, allowance: float = math.inf) -> None:
        """A row joins the next step. It is set aside when it has written `allowance` characters, until `grant`.

        The prompt is normalized as the network's texts were. Raises UnknownCharacter, with the position therein,
        unless such are to be skipped.
        """
        assert row_id not in self._rows, "row ids are used once"
        row = _Row(request, self.info, self._network.initial_state(1, self._device), allowance)
        self._rows[row_id] = row
        if row.unread:
            self._priming.append(row_id)

    def grant(self, row_id: int, characters: int) -> None:
        """The row may write so many more. Does nothing if the row is gone."""
        if row := self._rows.get(row_id):
            row.allowance += characters

    def evict(self, row_id: int) -> None:
        """The row is gone, whatever it was doing. Does nothing if it is already."""
        self._rows.pop(row_id, None)

    @torch.inference_mode()
    def step(self) -> list[RowOutput]:
        """Every row that is not set aside writes one character, and one row reads a piece of its prompt.

        Rows with nothing to show yet are left out.
        """
        self._prime_one()
        ready = [(row_id, row) for row_id, row in self._rows.items() if not row.unread and row.allowance > 0]
        outputs = [self._write(row_id, row) for row_id, row in ready]
        for output in outputs:
            if output.finished or output.failed:
                self.evict(output.row_id)
        return [output for output in outputs if output.text or output.finished or output.failed]

    def _prime_one(self) -> None:
        """Readers take turns, so that a short prompt is not kept waiting by a long one."""
        while self._priming:
            row_id = self._priming.popleft()
            if row := self._rows.get(row_id):
                _, row.state_LPBH = self._run(row.next_piece(), row.state_LPBH)
                if row.unread:
                    self._priming.append(row_id)
                return

    def _write(self, row_id: int, row: "_Row") -> RowOutput:
        logits_BTV, row.state_LPBH = self._run([row.last_id], row.state_LPBH)
        try:
            return row.take(row_id, draw(logits_BTV[0, 0].cpu().numpy(), row.request.sampling, row.noise()))
        except NotFinite as error:
            return RowOutput(row_id, "", failed=str(error))

    def _run(self, ids: list[int], state_LPBH: Tensor) -> tuple[Tensor, Tensor]:
        ids_BT = torch.tensor([ids], device=self._device)
        logits_BTV, after_LPBH = self._network(ids_BT, state_LPBH)
        return logits_BTV, after_LPBH


class _Row:
    """One text in the making: its state, what it has still to read, how much it may still write."""

    def __init__(self, request: RowRequest, info: CheckpointInfo, state_LPBH: Tensor, allowance: float) -> None:
        self.request = request
        self.state_LPBH = state_LPBH
        self.allowance = allowance
        self._characters = info.vocabulary.characters
        prompt = normalize(request.prompt, info.config.normalization)
        if request.skip_unknown:
            prompt = info.vocabulary.known(prompt)
        self._prompt = info.vocabulary.encode(prompt or beginning(info.vocabulary))
        self._read = 0
        self.last_id = int(self._prompt[-1])  # fed by the step that writes the first character
        self._written = 0
        self._noise_key = noise_key(request.seed, 0)
        self._stops = StopStrings(request.stop)

    @property
    def unread(self) -> bool:
        return self._read < len(self._prompt) - 1

    def next_piece(self) -> list[int]:
        before = self._read
        self._read = min(before + PRIME_CHARACTERS, len(self._prompt) - 1)
        piece: list[int] = self._prompt[before : self._read].tolist()
        return piece

    def noise(self) -> float:
        return uniform(self._noise_key, self._written)

    def take(self, row_id: int, drawn: int) -> RowOutput:
        """What there is to show after the drawn character."""
        self.last_id = drawn
        self._written += 1
        text, stopped = self._stops.feed(self._characters[drawn])
        finished: FinishReason | None = None
        if stopped:
            finished = "stop"
        elif self._written == self.request.max_characters:
            finished = "length"
            text += self._stops.rest()
        self.allowance -= len(text)
        return RowOutput(row_id, text, finished)


def beginning(vocabulary: Vocabulary) -> str:
    """What is read in place of an empty prompt: a line feed, as at a line's beginning, else a space, else the first
    character of the vocabulary. Always the same, so that an empty prompt and a seed give one text."""
    return next((c for c in "\n " if c in vocabulary), vocabulary.characters[0])
