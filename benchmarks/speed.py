"""Training speed: our step against the same network written plainly and against the tutorial's, and the machine's peak.

What is compared takes turns within one run, in two processes: ours trains as a job does, with threads that sleep while
they wait; PyTorch's own layers are faster when they spin. Plain and tutorial networks are float32: PyTorch's default.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from benchmarks import child
from benchmarks.figures import Report, at_least
from benchmarks.flops import FORMULA, step_flop
from benchmarks.options import Extent, Options
from benchmarks.plain import plain_step
from benchmarks.timing import PRODUCT_FLOP, interleaved_medians, matrix_products, timed
from models.config import Cell, ModelConfig, TrainingConfig
from models.precision import resolve_precision
from worker.batches import Lanes
from worker.launch import KEEP_MEMORY, TRAINING_ENVIRONMENT
from worker.learner import Learner

VOCABULARY = 65
"""As tiny Shakespeare has."""
SEQUENCE = 64
EMBEDDING = 64
BARS = {"bfloat16": (1.7, 2.2), "float32": (1.0, 1.0)}
"""At least so many times as fast as the plain network and the tutorial's, at hidden size 512."""
PEAK_BARS: dict[str, float] = {"lstm": 0.60, "gru": 0.50}
"""At hidden size 512 and batch 64, in the precision that training takes by default."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One network and batch."""

    cell: Cell
    layers: int
    hidden: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.cell} {self.layers}x{self.hidden}"

    def model(self, embedding: int) -> ModelConfig:
        return ModelConfig(self.cell, self.hidden, self.layers, embedding, dropout=0.0)


SECONDS: dict[Extent, float] = {"full": 5.0, "short": 2.0, "tiny": 0.0}
"""For each case, if its rounds are not longer."""
SHAPES = ((1, 128), (1, 256), (1, 512), (1, 1024), (2, 512))


def cases(extent: Extent) -> list[Case]:
    """Those that an extent measures."""
    if extent == "tiny":
        return [Case("gru", 1, 16, 4)]
    if extent == "short":
        return [Case(cell, 1, 512, 64) for cell in ("lstm", "gru", "rnn_tanh")]
    cells: tuple[Cell, ...] = ("lstm", "gru", "rnn_tanh", "rnn_relu")
    return [Case(cell, *shape, batch) for cell in cells for shape in SHAPES for batch in (32, 64)]


def precisions(asked: str) -> list[str]:
    """Which a precision asked for stands for: `all` is auto's and float32."""
    if asked in ("float32", "bfloat16"):
        return [asked]
    auto = resolve_precision("auto", "cpu")
    return [auto] if asked == "auto" else list(dict.fromkeys([auto, "float32"]))


def measure_speed(options: Options) -> list[Report]:
    """One row for each case and precision."""
    wanted, seconds = precisions(options.precision), SECONDS[options.extent]
    with (
        child.conversation("benchmarks.speed", {"threads": options.threads}, TRAINING_ENVIRONMENT) as ours,
        child.conversation("benchmarks.speed", {"threads": options.threads}, REFERENCE_ENVIRONMENT) as reference,
    ):
        rows = tuple(row for case in cases(options.extent) for row in _rows(case, wanted, seconds, ours, reference))
    columns = ("network", "batch", "precision", "characters/s", "of peak, GFLOP/s", "x plain", "x tutorial", "bars")
    notes = (
        f"Sequence {SEQUENCE}, embedding {EMBEDDING}, vocabulary {VOCABULARY}, medians of interleaved repeats.",
        "Plain: the same network by nn.Embedding, nn.LSTM/GRU/RNN and nn.Linear, float32, AdamW, clipping. "
        "Tutorial: the same, its embedding as wide as the hidden layer.",
        "Peak: a matrix product of 2048^3 in the same precision, in the same rounds, by the faster library. "
        f"{FORMULA}.",
    )
    return [Report("Training speed", columns, rows, notes)]


STEPS_OF_A_TURN = 3
REFERENCE_ENVIRONMENT = {**KEEP_MEMORY, "OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": None}
"""PyTorch's own layers have the allocator's setting that ours have, and threads that wait as threads do untold."""
REST_SECONDS = 0.02
"""Before each turn: threads of the other process that wait spinning are asleep by then."""


def _rows(
    case: Case, wanted: list[str], seconds: float, ours: child.Asker, reference: child.Asker
) -> Iterator[tuple[str, ...]]:
    timings: dict[str, Callable[[], float]] = {}
    for ask, asked in ((ours, wanted), (reference, [])):
        names = ask({"case": asdict(case), "precisions": asked})
        timings |= {name: partial(_turn, ask, name) for name in names}
    medians = interleaved_medians(timings, seconds)
    for precision in wanted:
        yield _row(case, precision, medians)


def _turn(ask: child.Asker, name: str) -> float:
    time.sleep(REST_SECONDS)
    return float(ask({"time": name}))


def main() -> None:
    """A process that makes the steps of a case, ours or what ours is measured against, and times them one by one."""
    torch.set_num_threads(child.request()["threads"])
    torch.set_flush_denormal(True)  # as training does
    steps: dict[str, Step] = {}
    for question in child.questions():
        if "case" in question:
            steps = _steps(Case(**question["case"]), question["precisions"])
            child.answer([list(steps)])
        else:
            step = steps[question["time"]]
            step()  # as in training, a step follows another: its memory is in the caches
            child.answer([statistics.median(timed(step) for _ in range(STEPS_OF_A_TURN))])


def _steps(case: Case, wanted: list[str]) -> dict[str, Step]:
    """Ours and the machine's products in the precisions that are wanted, or PyTorch's own where none is."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 500_000).astype(np.uint16)
    lanes = Lanes(ids, case.batch, SEQUENCE)
    if not wanted:
        return {
            "plain": plain_step(case.model(EMBEDDING), VOCABULARY, lanes),
            "tutorial": plain_step(case.model(case.hidden), VOCABULARY, lanes),
        }
    steps: dict[str, Step] = {}
    for precision in wanted:
        steps |= {precision: _our_step(case, precision, lanes), **matrix_products(precision)}
    return steps


def _our_step(case: Case, precision: str, lanes: Lanes) -> Step:
    training = TrainingConfig(steps=1, batch_size=case.batch, sequence_length=SEQUENCE, precision=precision)
    learner = Learner(case.model(EMBEDDING), training, VOCABULARY, lanes, "cpu")
    step = 0

    def advance() -> None:
        nonlocal step
        learner.update(step, 1e-4)
        step += 1

    return advance


def _row(case: Case, precision: str, medians: dict[str, float]) -> tuple[str, ...]:
    ours = medians[precision]
    flop = step_flop(case.model(EMBEDDING), VOCABULARY, case.batch, SEQUENCE)
    peak = PRODUCT_FLOP / min(medians.get(f"{precision} {library}", math.inf) for library in ("mm", "oneDNN"))
    share = flop / ours / peak
    plain, tutorial = medians["plain"] / ours, medians["tutorial"] / ours
    speed = f"{case.batch * SEQUENCE / ours:,.0f}"
    measured = (
        case.name,
        str(case.batch),
        precision,
        speed,
        f"{share:.0%} of {peak / 1e9:.0f}",
        f"{plain:.2f}",
        f"{tutorial:.2f}",
    )
    return (*measured, _bars(case, precision, share, plain, tutorial))


def _bars(case: Case, precision: str, share: float, plain: float, tutorial: float) -> str:
    """What issue 4 asks of this case, and whether it is so."""
    if case.hidden != 512:
        return ""
    of_plain, of_tutorial = BARS[precision]
    bars = [f"plain {at_least(plain, of_plain, 'x')}", f"tutorial {at_least(tutorial, of_tutorial, 'x')}"]
    if case.batch == 64 and case.cell in PEAK_BARS and precision == resolve_precision("auto", "cpu"):
        bars.insert(0, f"peak {at_least(100 * share, 100 * PEAK_BARS[case.cell], ' %', 0)}")
    return "; ".join(bars)


if __name__ == "__main__":
    main()
