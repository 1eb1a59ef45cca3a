"""Each row draws by its own settings in the one batch: what it draws follows a slow reference's distribution."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from models.config import ModelConfig
from models.padded_stepper import PaddedStepper
from models.rnn import CharRNN
from models.sampling import FORBIDDEN, READ, WRITTEN, SamplingConfig, noise_key
from models.stepper import Stepper

VOCABULARY = 12
READ_ID = 3
DRAWS = 3000
FALSE_FAILURES = 1e-6
"""Of one test with another seed, if the draw is right: 1.6e-5 of any of them. Here the seeds are fixed."""


@dataclass(frozen=True)
class Case:
    """Settings, and what happened before: ids of the prompt, times that ids were written, ids that may not be."""

    sampling: SamplingConfig
    read: tuple[int, ...] = ()
    written: dict[int, int] = field(default_factory=dict)
    forbidden: tuple[int, ...] = ()

    def tally(self) -> np.ndarray:
        tally_V = np.zeros(VOCABULARY, np.int32)
        for ids, mark in ((self.read, READ), (self.forbidden, FORBIDDEN)):
            tally_V[list(ids)] |= mark
        for one, times in self.written.items():
            tally_V[one] += WRITTEN * times
        return tally_V

    def probabilities(self, logits: list[float]) -> dict[int, float]:
        """From the definitions, in plain Python."""
        s = self.sampling
        for v in {*self.read, *self.written}:
            logits[v] = logits[v] / s.repetition_penalty if logits[v] > 0 else logits[v] * s.repetition_penalty
        for v, times in self.written.items():
            logits[v] -= s.presence_penalty + times * s.frequency_penalty
        odds = {v: math.exp(x / s.temperature) for v, x in enumerate(logits) if v not in self.forbidden}
        ranked = sorted(odds.items(), key=lambda item: -item[1])[: s.top_k or None]
        kept: dict[int, float] = {}
        for v, odd in ranked:
            if kept and sum(kept.values()) >= s.top_p * sum(odd for _, odd in ranked):
                break
            kept[v] = odd
        kept = {v: odd for v, odd in kept.items() if odd >= s.min_p * ranked[0][1]}
        return {v: odd / sum(kept.values()) for v, odd in kept.items()}


CASES = {
    "plain": Case(SamplingConfig()),
    "cold": Case(SamplingConfig(0.5)),
    "hot": Case(SamplingConfig(3.0)),
    "top_k": Case(SamplingConfig(top_k=4)),
    "top_p": Case(SamplingConfig(top_p=0.7)),
    "min_p": Case(SamplingConfig(min_p=0.3)),
    "repetition": Case(SamplingConfig(repetition_penalty=2.0), read=(0, 1, 2, 5), written={5: 2, 7: 1}),
    "repetition below 1": Case(SamplingConfig(repetition_penalty=0.5), read=(0, 1, 2), written={6: 1}),
    "presence": Case(SamplingConfig(presence_penalty=1.5), read=(0, 1), written={2: 5, 3: 1, 8: 2}),
    "presence below 0": Case(SamplingConfig(presence_penalty=-1.0), written={2: 5, 3: 1, 8: 2}),
    "frequency": Case(SamplingConfig(frequency_penalty=0.3), read=(0, 1), written={2: 5, 3: 1, 8: 2}),
    "penalties": Case(SamplingConfig(0.8, 0, 1.0, 0.0, 1.3, 0.4, 0.1), (0, 4, 9), {1: 3, 4: 1, 10: 7}),
    "forbidden": Case(SamplingConfig(), forbidden=(0, 3, 4, 11)),
    "one allowed": Case(SamplingConfig(top_k=3), forbidden=tuple(v for v in range(VOCABULARY) if v != 6)),
    "filters after penalties": Case(
        SamplingConfig(1.2, 5, 0.9, 0.05, 1.5, 0.5, 0.2), (2, 3), {3: 2, 7: 4}, (1, 8)
    ),
    "filters": Case(SamplingConfig(0.7, 6, 0.95, 0.1)),
}  # fmt: skip


def network() -> CharRNN:
    torch.manual_seed(3)
    made = CharRNN(ModelConfig("gru", 24, 1, embedding_size=8), VOCABULARY).eval()
    with torch.no_grad():
        made.output.bias.copy_(torch.randn(VOCABULARY))
    return made


def drawn_together(stepper: Stepper | PaddedStepper, draws: int) -> dict[str, Counter[int]]:
    """First characters of rows which all read the same, each with settings and noise of its own."""
    counts: dict[str, Counter[int]] = {name: Counter() for name in CASES}
    for turn in range(draws):
        for seed, case in enumerate(CASES.values()):
            key = noise_key(seed, turn)
            stepper.join(stepper.empty_state, READ_ID, case.sampling, key, turn, case.tally())
        for name, drawn in zip(CASES, stepper.write(1)[0].tolist(), strict=True):
            counts[name][drawn] += 1
        for place in reversed(range(len(CASES))):
            stepper.leave(place)
    return counts


@pytest.fixture(scope="module")
def counted() -> dict[str, Counter[int]]:
    return drawn_together(Stepper(network(), torch.float32), DRAWS)


@pytest.mark.parametrize("name", CASES)
def test_draws_of_a_row_follow_its_own_distribution(name: str, counted: dict[str, Counter[int]]) -> None:
    with torch.no_grad():
        model = network()
        logits = model(torch.tensor([[READ_ID]]), model.initial_state(1))[0][0, 0].double()
    expected = {v: DRAWS * p for v, p in CASES[name].probabilities(logits.tolist()).items()}
    assert counted[name].keys() <= expected.keys(), "what is filtered out never comes"
    rare = [v for v, number in expected.items() if number < 5]  # too few for the approximation: counted as one
    cells = [(counted[name][v], expected[v]) for v in expected if v not in rare]
    if rare:
        cells.append((sum(counted[name][v] for v in rare), sum(expected[v] for v in rare)))
    statistic = sum((got - wanted) ** 2 / wanted for got, wanted in cells)
    freedom = len(cells) - 1
    if freedom:
        by_chance = torch.special.gammaincc(torch.tensor(freedom / 2.0), torch.tensor(statistic / 2)).item()
        assert by_chance > FALSE_FAILURES, (counted[name], expected)


def test_padded_batches_draw_the_same() -> None:
    stepper = Stepper(network(), torch.float32)
    assert drawn_together(PaddedStepper(network()), 40) == drawn_together(stepper, 40)


def test_what_a_row_writes_is_added_to_its_tally() -> None:
    for stepper in (Stepper(network(), torch.float32), PaddedStepper(network())):
        tallies = [np.zeros(VOCABULARY, np.int32) for _ in range(5)]
        for seed, tally_V in enumerate(tallies):
            sampling = SamplingConfig(2.0, frequency_penalty=1.0)
            stepper.join(stepper.empty_state, READ_ID, sampling, noise_key(seed, 0), 0, tally_V)
        drawn_TR = stepper.write(50)
        for tally_V, ids in zip(tallies, drawn_TR.T, strict=True):
            assert (tally_V == WRITTEN * np.bincount(ids, minlength=VOCABULARY)).all()
