"""From logits to the next character: penalties, temperature, filters, and noise that is a pure function of its place.

Knows no torch, no rows and no texts. The order is fixed. Forbidden characters are impossible. The repetition penalty
divides the logits above 0, and multiplies those below, of characters that the prompt or the text has (Keskar and others
2019, "CTRL", with the prompt as in Hugging Face's and vLLM's). Of characters that the text has, `presence_penalty` is
taken from the logits once and `frequency_penalty` once for each time (OpenAI's definition; the prompt does not count).
Then the logits are divided by the temperature and become probabilities; of these top-k keeps the k likeliest; of
those, renormalised, top-p keeps the fewest likeliest that together reach p; of those min-p drops what is below its
share of the likeliest one. Equally likely characters are ranked by id, lowest first. Invariants: the likeliest
character that may be written always stays, and finite logits never give NaN.

Shape suffix: V vocabulary. `tally_V` (int32) is what is known of each character: the sum of the marks below.
"""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: splitmix64's increment


FORBIDDEN, READ, WRITTEN = 1, 2, 4
"""Marks of a character: may not be written; is in the prompt; was written, once for each time."""


class NotFinite(ArithmeticError):
    """The network answered NaN or infinity: its weights are too large to compute with."""


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How freely to draw. The defaults draw from the network's own distribution."""

    temperature: float = 1.0
    """Divides the logits, 0 to 1e6; 0 takes the likeliest character."""
    top_k: int = 0
    """Keep the k likeliest; 0: all."""
    top_p: float = 1.0
    """Keep the fewest likeliest whose share reaches p, 0 to 1; 1: all; 0: the likeliest alone."""
    min_p: float = 0.0
    """Drop what is less likely than this share of the likeliest, 0 to 1; 0: nothing."""
    repetition_penalty: float = 1.0
    """Above 1 against characters of prompt and text, below 1 for them, 0.1 to 10; 1: neither."""
    presence_penalty: float = 0.0
    """Taken from the logits of characters that were written, in nats, -10 to 10."""
    frequency_penalty: float = 0.0
    """Taken from them once for each time that they were, in nats, -10 to 10."""

    @property
    def counts(self) -> bool:
        """Whether it matters which characters were read and written."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        # Written so that NaN fails every one of them.
        if not 0 <= self.temperature <= 1e6:
            raise ValueError(f"temperature: must be from 0 to 1e6, not {self.temperature!r}")
        if self.top_k < 0:
            raise ValueError(f"top_k: must be 0 or more, not {self.top_k!r}")
        # 0 as well: where denormals are flushed, as in the generation process, the smallest numbers above it are 0.
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p: must be from 0 to 1, not {self.top_p!r}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p: must be from 0 to 1, not {self.min_p!r}")
        if not 0.1 <= self.repetition_penalty <= 10:
            raise ValueError(f"repetition_penalty: must be from 0.1 to 10, not {self.repetition_penalty!r}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -10 <= getattr(self, name) <= 10:
                raise ValueError(f"{name}: must be from -10 to 10, not {getattr(self, name)!r}")


def draw(
    logits_V: NDArray[np.float32], sampling: SamplingConfig, uniform: float, tally_V: NDArray[np.int32] | None = None
) -> int:
    """The id of the next character, by the inverse distribution function at `uniform` in [0, 1).

    Raises NotFinite for logits that are NaN or +infinity.
    """
    if tally_V is not None:
        logits_V = adjusted(logits_V, sampling, tally_V)
    if sampling.temperature == 0:
        return int(_check(logits_V).argmax())
    cumulative_V = weights(logits_V, sampling).cumsum()
    total = cumulative_V[-1]
    index = int(cumulative_V.searchsorted(uniform * total, side="right"))
    # The product may round up to the total: then the last character with a share is meant.
    return index if index < len(cumulative_V) else int(cumulative_V.searchsorted(total))


def adjusted(
    logits_V: NDArray[np.float32], sampling: SamplingConfig, tally_V: NDArray[np.int32]
) -> NDArray[np.float32]:
    """The logits after the penalties; those of forbidden characters are -infinity."""
    exact_V, written_V = logits_V.astype(np.float64), tally_V // WRITTEN
    seen_V = tally_V >= READ
    factor = np.where(exact_V > 0, 1 / sampling.repetition_penalty, sampling.repetition_penalty)
    exact_V[seen_V] *= factor[seen_V]
    taken_V = sampling.frequency_penalty * written_V + sampling.presence_penalty
    exact_V[written_V > 0] -= taken_V[written_V > 0]
    exact_V[tally_V % READ == FORBIDDEN] = -np.inf
    return exact_V.astype(np.float32)


def weights(logits_V: NDArray[np.float32], sampling: SamplingConfig) -> NDArray[np.float64]:
    """What each character weighs in the draw, float64, the likeliest 1, filtered ones 0; temperature above 0."""
    exact_V = _check(logits_V).astype(np.float64)
    # Below the normal numbers a temperature is 0 to a processor that flushes denormals, as the generation process does.
    temperature = max(sampling.temperature, sys.float_info.min)
    with np.errstate(over="ignore"):  # a tiny temperature: -infinity, whose exponential is the right 0
        weights_V: NDArray[np.float64] = np.exp((exact_V - exact_V.max()) / temperature)
    if 0 < sampling.top_k < len(weights_V) or sampling.top_p < 1:
        _drop_unlikely(weights_V, sampling.top_k, sampling.top_p)
    if sampling.min_p > 0:
        weights_V[weights_V < sampling.min_p] = 0  # the likeliest weighs 1
    return weights_V


def noise_key(seed: int, sample: int) -> int:
    """Where the noise of one text begins: `seed` names the request, `sample` its text if it asks for several."""
    return _mix(_mix(seed + _GAMMA) + sample)


def uniform(key: int, position: int) -> float:
    """The noise of the character at `position`, uniform in [0, 1) with 53 bits.

    splitmix64 at an index (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators"): no generator
    is shared or advanced, so a text does not depend on what else is drawn.
    """
    return (_mix(key + (position + 1) * _GAMMA) >> 11) * 2.0**-53


def _check(logits_V: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(logits_V.max()):  # NaN wins every maximum
        raise NotFinite("the network's answer is not finite")
    return logits_V


def _drop_unlikely(weights_V: NDArray[np.float64], top_k: int, top_p: float) -> None:
    """Top-k, then top-p, in place."""
    order_V = np.argsort(-weights_V, kind="stable")
    kept = order_V[:top_k] if top_k else order_V
    if top_p < 1:
        share = weights_V[kept].cumsum()
        kept = kept[: int(share.searchsorted(top_p * share[-1])) + 1]
    dropped = order_V[len(kept) :]
    weights_V[dropped] = 0


def _mix(value: int) -> int:
    """splitmix64's finalizer: every bit of the 64 depends on every other."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
