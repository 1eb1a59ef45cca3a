"""Generation: rows that read a prompt and write a text, all advanced together by one synchronous `step`.

Knows no network, connection, process or store. A row's whole past is its state: a row that is set aside is its state
and costs nothing, and rows join and leave between two steps (continuous batching). A prompt is read once for all its
samples, for whoever asks for the same meanwhile, and its state is kept for those who ask later. Invariant: what a row
writes depends on the weights and its request alone, never on other rows, nor on when it was admitted, set aside or
granted more.

Shape suffixes: T time steps, R rows, L layers, P parts of a layer's state, H hidden.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoint_header import CheckpointInfo
from models.prefix_cache import PrefixCache
from models.prompts import KEPT_EVERY, Prompt, Read
from models.rows import Prepared, Row, RowOutput, RowRequest
from models.sampling import SamplingConfig
from models.scores import Stepper as ScoringStepper
from models.scores import joined, score

TURN_SECONDS = 0.002
"""About so long one call writes, and one call reads of a prompt: a row that is evicted, or comes, waits no longer."""
READING_SHARE = 0.8
"""Of the time that rows wrote in a turn, prompts and texts to score are read for so much, all together: rows are to
keep half their pace, and lose more than that time, since what hands their text on is not counted. With all of it a
prompt left them 47 to 53 % through the service, with this 50 to 57."""
SHORTEST_SECONDS = 1e-6
"""A clock may stand still meanwhile."""
MOST_STEPS = 64
FEWEST_KEPT = 32
"""Characters of a prompt whose state is worth keeping."""


def reading_seconds(written: float) -> float:
    """How long all that is read may take together after rows wrote for so long; no matter where none wrote."""
    return READING_SHARE * written if written else math.inf


class Stepper(ScoringStepper, Protocol):
    """models.stepper, as far as it is needed here."""

    @property
    def empty_state(self) -> Tensor:
        """That of a row which has read nothing [L, P, H]."""

    def join(
        self,
        state_LPH: Tensor,
        last_id: int,
        sampling: SamplingConfig,
        noise_key: int,
        position: int,
        tally_V: NDArray[np.int32] | None,
    ) -> None: ...

    def leave(self, place: int) -> Tensor: ...

    def states(self, places: Sequence[int]) -> NDArray[np.float32]: ...

    def write(self, steps: int) -> NDArray[np.int64]: ...

    def read(self, state_LPH: Tensor, ids_T: NDArray[np.int64]) -> Tensor: ...

    def reader(self, characters: int) -> Read: ...


class Engine:
    """The rows of one loaded model. All methods belong to one thread."""

    def __init__(self, stepper: Stepper, info: CheckpointInfo, clock: Callable[[], float] = time.perf_counter) -> None:
        self.info = info
        self._stepper = stepper
        self._clock = clock
        self._rows: dict[int, Row] = {}
        self._writing: list[Row] = []  # by their place in the stepper
        self._showing: deque[Row] = deque()  # their prompts, before they write
        self._reading: deque[Prompt] = deque()
        self._prefixes = PrefixCache()
        self._step_seconds = TURN_SECONDS
        self._read_seconds = {False: TURN_SECONDS, True: TURN_SECONDS}  # of a prompt's character, scored or not

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do: some row is not set aside."""
        return bool(self._writing or self._reading or self._showing)

    def admit(self, row_ids: Sequence[int], request: RowRequest, allowance: float = math.inf) -> int:
        """Rows, each a sample of the request, join the next step; its seed and the row's index are a row's noise. How
        many characters the prompt has.

        A row is set aside when it has written `allowance` characters, until `grant`. Raises what `Prepared` raises, and
        ValueError for a state that is not of this network.
        """
        assert not self._rows.keys() & set(row_ids), "row ids are used once"
        start = request.start
        if start is not None and not start.fits(self._stepper.empty_state, self.info.vocabulary):
            raise ValueError("the state to go on from is not of this network")
        prepared = Prepared(request, self.info)
        rows = [Row(row_id, sample, prepared, allowance) for sample, row_id in enumerate(row_ids)]
        self._rows |= {row.id: row for row in rows}
        if start is not None:
            self._begin(Prompt(prepared.unread_T, 0, start.hidden_LPH, rows))
        elif len(prepared.unread_T) < FEWEST_KEPT or (request.echo and request.alternatives is not None):
            self._begin(Prompt(prepared.unread_T, 0, self._stepper.empty_state, rows))
        elif same := next((one for one in self._reading if one.is_of(prepared.unread_T)), None):
            same.rows += rows
        else:
            known = self._prefixes.longest(prepared.unread_T)
            state_LPH = self._stepper.empty_state if known.state_LPH is None else known.state_LPH
            self._begin(Prompt(prepared.unread_T, known.length, state_LPH, rows, known.hasher))
        return prepared.prompt_characters

    def grant(self, row_id: int, characters: int) -> None:
        """The row may write so many more. Does nothing if the row is gone."""
        if row := self._rows.get(row_id):
            row.allowance += characters
            if row.hidden_LPH is not None and row.place is None:
                self._join(row)

    def evict(self, row_id: int) -> None:
        """The row is gone, whatever it was doing. Does nothing if it is already."""
        if row := self._rows.pop(row_id, None):
            self._set_aside(row)
            if row in self._showing:
                self._showing.remove(row)
            if prompt := next((one for one in self._reading if row in one.rows), None):
                prompt.rows.remove(row)
                if not prompt.rows:
                    self._reading.remove(prompt)

    @property
    def reads(self) -> bool:
        """Whether a prompt is to be read."""
        return bool(self._reading)

    def step(self) -> list[RowOutput]:
        """`write`, then `read` as long as `reading_seconds` allows."""
        outputs, seconds = self.write()
        self.read(reading_seconds(seconds))
        return outputs

    def write(self) -> tuple[list[RowOutput], float]:
        """Rows that are not set aside write some characters, all as many, for `TURN_SECONDS`, about.

        What they have to show (rows with nothing to show yet are left out), and the seconds that it took: 0 where none
        writes.
        """
        shown = [self._show()] if self._showing else []
        written, seconds = self._write() if self._writing else ([], 0.0)
        return shown + written, seconds

    def read(self, seconds: float) -> None:
        """One prompt is read for about so long, by one character at least. Does nothing where none is to be read."""
        if self._reading:
            self._read_one(seconds)

    def _write(self) -> tuple[list[RowOutput], float]:
        rows, began = list(self._writing), self._clock()
        kept = [place for place, row in enumerate(rows) if row.keeps_state]
        before_LPRH = self._stepper.states(kept) if kept else None
        read_R = [row.last_id for row in rows]
        steps = self._steps()
        drawn_TR = self._stepper.write(steps)
        if before_LPRH is not None:
            self._score(rows, kept, before_LPRH, read_R, drawn_TR)
        seconds = max(self._clock() - began, SHORTEST_SECONDS)
        self._step_seconds = seconds / steps
        outputs = []
        for place, (row, ids) in enumerate(zip(rows, drawn_TR.T.tolist(), strict=True)):
            output, taken = row.take(ids)
            if output.finished or output.failed:
                self.evict(row.id)
            elif row.allowance <= 0:
                self._set_aside(row)
            if output.finished and row.request.keep_state:
                if taken < steps:  # the stepper has gone on: what is a part of the text is read again
                    assert before_LPRH is not None
                    read_T = np.array([read_R[place], *ids][:taken], np.int64)
                    before_LPH = torch.from_numpy(before_LPRH[:, :, kept.index(place)].copy())
                    row.hidden_LPH = self._stepper.read(before_LPH, read_T)
                output = replace(output, state=row.state(output.held_back))
            if output.text or output.finished or output.failed:
                outputs.append(output)
        return outputs, seconds

    def _score(
        self,
        rows: Sequence[Row],
        kept: Sequence[int],
        before_LPRH: NDArray[np.float32],
        read_R: Sequence[int],
        drawn_TR: NDArray[np.int64],
    ) -> None:
        """Rows that tell scores get those of what was drawn: it is read again, from the states before."""
        lanes = [lane for lane, place in enumerate(kept) if rows[place].alternatives is not None]
        if not lanes:
            return
        places = [kept[lane] for lane in lanes]
        ids_TR = np.vstack(([read_R[place] for place in places], drawn_TR[:, places].clip(0)))  # -1 of those that fail
        alternatives = [rows[place].alternatives or 0 for place in places]
        _, scores = score(self._stepper, before_LPRH[:, :, lanes], ids_TR, alternatives)
        for place, of_row in zip(places, scores, strict=True):
            rows[place].score(of_row)

    def _show(self) -> RowOutput:
        """A piece of one row's prompt: they take turns. The row then has another one, writes, or is at its end."""
        row = self._showing.popleft()
        output = row.show()
        if output.finished:
            self.evict(row.id)
        else:
            self._join(row)
        return output

    def _steps(self) -> int:
        """As many as every row may write, one where a row waits for its first character."""
        most = min(MOST_STEPS, int(TURN_SECONDS / self._step_seconds))
        return max(1, min(most, *(row.most_steps for row in self._writing)))

    def _begin(self, prompt: Prompt) -> None:
        if prompt.unread:
            self._reading.append(prompt)
        else:
            self._end_reading(prompt)

    def _read_one(self, seconds: float) -> None:
        """Prompts take turns, so that a short one is not kept waiting by a long one."""
        prompt = self._reading.popleft()
        is_scored = prompt.alternatives is not None
        piece_T = prompt.next_piece(int(min(seconds, TURN_SECONDS) / self._read_seconds[is_scored]))
        began = self._clock()
        if is_scored:
            self._score_prompt(prompt, piece_T)
        else:
            if prompt.reader is None:
                prompt.reader = self._stepper.reader(len(piece_T) + prompt.unread)
            prompt.state_LPH = prompt.reader(prompt.state_LPH, piece_T)
        self._read_seconds[is_scored] = max(self._clock() - began, SHORTEST_SECONDS) / len(piece_T)
        if prompt.hasher is not None and (not prompt.unread or prompt.read % KEPT_EVERY == 0):
            self._prefixes.keep(prompt.hasher, prompt.read, prompt.state_LPH)
        self._begin(prompt)

    def _score_prompt(self, prompt: Prompt, piece_T: NDArray[np.int64]) -> None:
        """Read the piece, and keep the scores of what follows each of its characters."""
        before_LPRH, ids_TR = prompt.state_LPH[:, :, None].numpy().copy(), np.append(piece_T, prompt.next_id)[:, None]
        alternatives = prompt.rows[0].alternatives or 0
        after_LPRH, [scores] = score(self._stepper, before_LPRH, ids_TR, [alternatives])
        prompt.state_LPH = torch.from_numpy(after_LPRH[:, :, 0].copy())
        prompt.scores.append(scores)

    def _end_reading(self, prompt: Prompt) -> None:
        if prompt.alternatives is not None:
            scores = joined(prompt.scores, prompt.rows[0].alternatives or 0)
            for row in prompt.rows:
                row.prompt_scores = scores
        for row in list(prompt.rows):
            row.hidden_LPH = prompt.state_LPH
            self._join(row)

    def _join(self, row: Row) -> None:
        if row.allowance <= 0 or row.hidden_LPH is None or row in self._showing:
            return
        if row.shows_first:
            self._showing.append(row)
        else:
            row.place = len(self._writing)
            self._writing.append(row)
            self._stepper.join(
                *(row.hidden_LPH, row.last_id, row.request.sampling, row.noise_key, row.position, row.tally_V)
            )

    def _set_aside(self, row: Row) -> None:
        if row.place is not None:
            row.hidden_LPH = self._stepper.leave(row.place)
            last = self._writing.pop()
            if last is not row:  # as in the stepper
                self._writing[row.place], last.place = last, row.place
            row.place = None
