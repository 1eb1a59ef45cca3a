"""Times of things that are measured side by side.

A shared machine drifts by tens of percent within minutes, so what is compared takes turns: a drift meets all alike.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional as F

PRODUCT_SIZE = 2048
PRODUCT_FLOP = 2 * PRODUCT_SIZE**3
FEWEST_ROUNDS = 3


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleaved_medians(
    timings: Mapping[str, Callable[[], float]], seconds: float, fewest: int = FEWEST_ROUNDS
) -> dict[str, float]:
    """The median of what each told (seconds) over rounds in which each has its turn. A first round is not counted."""
    for timing in timings.values():
        timing()
    taken: dict[str, list[float]] = {name: [] for name in timings}
    begin, rounds = time.perf_counter(), 0
    while rounds < fewest or time.perf_counter() - begin < seconds:
        for name, timing in timings.items():
            taken[name].append(timing())
        rounds += 1
    return {name: statistics.median(times) for name, times in taken.items()}


def matrix_products(precision: str) -> dict[str, Callable[[], object]]:
    """Products of PRODUCT_FLOP operations, to be timed: the fastest is what the machine can do.

    float32 has two libraries: torch.mm calls MKL, which on some processors that are not Intel's reaches half of what
    oneDNN does (AMD EPYC with AVX-512: 99 and 221 GFLOP/s on one core, errors alike).
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    products: dict[str, Callable[[], object]] = {f"{precision} mm": lambda: torch.mm(left, right, out=out)}
    if precision == "float32" and torch.backends.mkldnn.is_available():
        blocked = left.to_mkldnn()
        products[f"{precision} oneDNN"] = lambda: F.linear(blocked, right)
    return products
