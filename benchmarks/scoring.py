"""How fast a text is scored, against the trainer's evaluation of the same network on the same text, and in what memory.

Everything of one network takes turns in a process of its own: scores as the generation process works them out, on one
thread, turn by turn, the answer's JSON included; the evaluation as training does it, on all threads.
"""

from collections.abc import Callable

import numpy as np
import torch

from app.generation.score_document import ScoreDocument
from app.generation.stream import FED_CHARACTERS
from benchmarks import child
from benchmarks.figures import Report, at_least, at_most, peak_mib, reset_peak, resident_mib
from benchmarks.options import Extent, Options
from benchmarks.timing import interleaved_medians, timed
from models.checkpoint_header import CheckpointInfo
from models.config import Cell, ModelConfig
from models.engine import TURN_SECONDS
from models.rnn import CharRNN
from models.scorer import Scorer
from models.stepper import compile_first, stepper_of
from models.vocabulary import Vocabulary
from worker.evaluation import Validation

ALPHABET = "".join(map(chr, range(32, 97)))
EMBEDDING, TOP = 64, 20
SPEED_BAR, MEMORY_BAR_MIB = 1.0, 32.0
NETWORKS: tuple[tuple[Cell, int, int], ...] = (("lstm", 1, 512), ("gru", 1, 512), ("gru", 1, 256))
CHOSEN: dict[Extent, int] = {"full": len(NETWORKS), "short": 1}
CHARACTERS: dict[Extent, int] = {"full": 1_000_000, "short": 131_072, "tiny": 5_000}
ROUNDS: dict[Extent, int] = {"full": 2, "short": 1, "tiny": 1}


def measure_scoring(options: Options) -> Report:
    """One row for each network."""
    extent = options.extent
    networks = NETWORKS[: CHOSEN[extent]] if extent != "tiny" else (("gru", 1, 16),)
    rows = tuple(_row(*network, options) for network in networks)
    columns = ("network", "scores, characters/s", f"with top {TOP}", "evaluation", "x evaluation", "memory", "bars")
    notes = (
        f"A text of {CHARACTERS[extent]:,} characters, 65 different ones. Scores on one thread, in the precision of "
        f"generation; evaluation on {options.threads}, in float32. Memory: growth of the resident size while the text "
        "is scored, without alternatives and with them.",
    )
    return Report("Scoring", columns, rows, notes)


def _row(cell: Cell, layers: int, hidden: int, options: Options) -> tuple[str, ...]:
    request = {"cell": cell, "layers": layers, "hidden": hidden, "threads": options.threads}
    extent = options.extent
    (told,) = child.ask("benchmarks.scoring", request | {"characters": CHARACTERS[extent], "rounds": ROUNDS[extent]})
    score, top, evaluation = (told["characters"] / told[name] for name in ("score", "top", "evaluation"))
    speed, memory = at_least(score / evaluation, SPEED_BAR, "x", 0), at_most(told["mib"], MEMORY_BAR_MIB, " MiB", 0)
    figures = (f"{score:,.0f}", f"{top:,.0f}", f"{evaluation:,.0f}", f"{score / evaluation:.1f}")
    grown = f"{told['mib']:.0f} MiB, {told['top_mib']:.0f} MiB"
    return (f"{cell} {layers}x{hidden}", *figures, grown, f"speed {speed}; memory {memory}")


def main() -> None:
    asked = child.request()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as in the generation process
    torch.manual_seed(0)
    config = ModelConfig(asked["cell"], asked["hidden"], asked["layers"], EMBEDDING)
    network = CharRNN(config, len(ALPHABET)).eval()
    info = CheckpointInfo(config, Vocabulary(ALPHABET), step=0)
    ids_N = np.random.default_rng(0).integers(0, len(ALPHABET), asked["characters"], np.uint16)
    text = info.vocabulary.decode(ids_N.tolist())
    compile_first()
    stepper = stepper_of(network)

    def score(text: str, top: int = 0) -> None:
        scorer = Scorer(stepper, info, alternatives=top)
        for begin in range(0, len(text), FED_CHARACTERS):
            scorer.read(text[begin : begin + FED_CHARACTERS])
        scorer.end()
        document = ScoreDocument(scorer, ALPHABET, top=top > 0)
        while not document.finished:
            document.advance(TURN_SECONDS)

    score(text[:100], TOP)  # what is loaded at the first time is none of its memory
    grown = {"mib": _growth(lambda: score(text)), "top_mib": _growth(lambda: score(text, TOP))}
    timings: dict[str, Callable[[], float]] = {
        "score": lambda: timed(lambda: score(text)),
        "evaluation": _evaluation(network, ids_N, asked["threads"]),
    }
    medians = interleaved_medians(timings, 0, asked["rounds"])
    top = timed(lambda: score(text, TOP))
    child.answer([grown | medians | {"top": top, "characters": len(text)}])


def _growth(action: Callable[[], object]) -> float:
    reset_peak()
    before = resident_mib()
    action()
    return peak_mib() - before


def _evaluation(network: CharRNN, ids_N: np.ndarray, threads: int) -> Callable[[], float]:
    """Of all but the first character, from which the second is predicted."""

    def evaluate() -> None:
        for _ in Validation(ids_N, 1).losses(network, "cpu"):
            pass

    def timing() -> float:
        torch.set_num_threads(threads)
        network.fast = True  # as the trainer has it
        seconds = timed(evaluate)
        torch.set_num_threads(1)
        return seconds

    return timing


if __name__ == "__main__":
    main()
