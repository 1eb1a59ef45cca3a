"""How well the network predicts the validation part, and a few lines that it writes.

Two protocols: `Validation`, with carried state, is training's own; `cold_window_loss`, each window from nothing, is for
comparing with networks that see no further back. A loss is told with the name of its protocol.

Touches neither training's random numbers nor its carried state: evaluation has none, sampling noise of its own.
Everything is float32, whatever training multiplies in, so that losses of different trainings compare.

Shape suffixes: B lanes, T time steps, V vocabulary; state_LPBH as in models.rnn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.rnn import CharRNN
from models.rows import beginning
from models.sampling import SamplingConfig, draw, noise_key, uniform
from models.vocabulary import Vocabulary
from worker.batches import Ids, read_windows

LANES = 16
"""16 lanes measure 0.001 nats off one lane, many times faster; 64 lanes 0.004 off (tiny Shakespeare)."""
WARM_CHARACTERS = 256
"""Read before a lane's first counted character: the state it would have had, nearly."""
LANE_MINIMUM = 512
"""A small validation part has fewer lanes rather than shorter ones."""
MOST_CHARACTERS = 1_000_000
"""Of a longer validation part so many count, spread over it: the loss is known to a thousandth of a nat by then."""
WINDOW = 128
"""Characters of each lane at once. Longer was slower (16 lanes, GRU 1x512: 47,000 characters/s, with 512 34,000)."""
COLD_CHARACTERS = 4096
"""Of all cold windows that are read at once. GRU 1x512, one core, windows of 64: 41,000 characters/s; 28,000 with eight
times as many."""

SAMPLE_CHARACTERS = 120
SAMPLING = SamplingConfig(temperature=0.8)


class Validation:
    """The part of a text from `begin` on, in lanes that are each warmed on the characters before.

    The lanes begin at even distances. If there are more characters than may count, each lane reads a stretch at its
    beginning: a long part may change its kind on the way (chapters, authors, languages).
    """

    def __init__(self, ids: Ids, begin: int, most_characters: int = MOST_CHARACTERS, lanes: int = LANES) -> None:
        self._ids = ids
        part = len(ids) - begin
        self.characters = min(part, MOST_CHARACTERS, most_characters)
        self.lanes = max(1, min(lanes, self.characters // LANE_MINIMUM))
        self._starts_B = begin + np.arange(self.lanes, dtype=np.int64) * part // self.lanes
        self._lane_characters = -(-self.characters // self.lanes)  # rounded up: lanes may overlap by one character
        self._warm = min(WARM_CHARACTERS, begin - 1)

    def losses(self, network: CharRNN, device: str) -> Iterator[tuple[float, int]]:
        """Sum of the losses in nats and number of characters, window by window; warming counts none."""
        edges = [-self._warm, *range(0, self._lane_characters, WINDOW), self._lane_characters]
        state_LPBH = network.initial_state(self.lanes, device)
        for begin, end in pairwise(edges):
            if begin == end:
                continue
            ids_BT = read_windows(self._ids, self._starts_B + begin - 1, end - begin + 1)
            total, state_LPBH = _window_loss(network, torch.from_numpy(ids_BT).to(device), state_LPBH)
            yield (total, (end - begin) * self.lanes) if begin >= 0 else (0.0, 0)


def cold_window_loss(network: CharRNN, ids: Ids, begin: int, window: int, device: str) -> float:
    """Mean loss in nats over disjoint windows of `window` characters, which cover `ids` from `begin` on.

    nanoGPT's protocol (its train.py: x = data[i : i + N], y = data[i + 1 : i + N + 1]), over every window instead of a
    few random ones: the state is zero before each window's first character, and all N characters that follow one of
    the window's count, the second character of the text, predicted from the first alone, as much as the last. What is
    left at the end is shorter than a window and does not count. Raises ValueError when there is no whole window.
    """
    windows = (len(ids) - begin - 1) // window
    if windows < 1:
        raise ValueError(f"{len(ids) - begin} characters hold no window of {window} and the character after it")
    starts_B = begin + window * np.arange(windows, dtype=np.int64)
    total = 0.0
    for first in range(0, windows, rows := max(1, COLD_CHARACTERS // window)):
        ids_BT = read_windows(ids, starts_B[first : first + rows], window + 1)
        state_LPBH = network.initial_state(len(ids_BT), device)
        total += _window_loss(network, torch.from_numpy(ids_BT).to(device), state_LPBH)[0]
    return total / (windows * window)


@contextmanager
def _without_dropout(network: CharRNN) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


@torch.inference_mode()
def _window_loss(network: CharRNN, ids_BT: Tensor, state_LPBH: Tensor) -> tuple[float, Tensor]:
    """Summed loss of predicting every character but the first, and the state after them."""
    with _without_dropout(network):
        logits_BTV, state_LPBH = network(ids_BT[:, :-1], state_LPBH)
    logits_NV, targets_N = logits_BTV.transpose(0, 1).flatten(0, 1), ids_BT[:, 1:].t().flatten()
    return F.cross_entropy(logits_NV, targets_N, reduction="sum").item(), state_LPBH


@torch.inference_mode()
def sample_text(network: CharRNN, vocabulary: Vocabulary, device: str) -> str:
    """About two lines that the network writes from nothing, always with the same noise. Raises NotFinite."""
    key = noise_key(seed=0, sample=0)
    ids = vocabulary.encode(beginning(vocabulary)).tolist()
    state_LPBH = network.initial_state(1, device)
    with _without_dropout(network):
        for position in range(SAMPLE_CHARACTERS):
            logits_11V, state_LPBH = network(torch.tensor([ids[-1:]], device=device), state_LPBH)
            ids.append(draw(logits_11V[0, 0].cpu().numpy(), SAMPLING, uniform(key, position)))
    return vocabulary.decode(ids[1:])
