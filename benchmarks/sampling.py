"""How fast the engine's rows write: one alone, and 64 together, without any service around them.

Everything of one network takes turns in a process of its own, on one thread, as in the generation process: our stepper
with one row and with 64, the plain loop, a read of memory, and a product of 64 rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import child
from benchmarks.figures import Report, at_least
from benchmarks.flops import step_flop
from benchmarks.options import Extent, Options
from benchmarks.plain import PlainNetwork, State
from benchmarks.timing import interleaved_medians, timed
from models.config import GATES, Cell, ModelConfig
from models.folded import PACKED_FOR
from models.products import Weight, array_of
from models.rnn import CharRNN
from models.sampling import SamplingConfig, noise_key
from models.stepper import Stepper, stepper_of

VOCABULARY, EMBEDDING, ROWS = 65, 64, 64
BARS: dict[Cell, float] = {"lstm": 8.0, "gru": 2.0, "rnn_tanh": 2.0, "rnn_relu": 2.0}
"""One stream: so many times as fast as the plain loop."""
BANDWIDTH_BAR, PEAK_BAR = 50.0, 60.0
PEAK_NETWORKS = ("lstm 2x512", "gru 1x512")
CHARACTERS = 40
"""That a turn writes."""
READ_BYTES = 256 * 1024 * 1024

NETWORKS: tuple[tuple[Cell, int, int], ...] = (
    ("lstm", 1, 512),
    ("lstm", 2, 512),
    ("gru", 1, 512),
    ("gru", 2, 512),
    ("rnn_tanh", 1, 512),
    ("rnn_tanh", 2, 512),
    ("gru", 1, 256),
)
CHOSEN: dict[Extent, int] = {"full": len(NETWORKS), "short": 2, "tiny": 1}
SECONDS: dict[Extent, float] = {"full": 5.0, "short": 1.0, "tiny": 0.0}


def measure_sampling(options: Options) -> list[Report]:
    """One row for each network."""
    networks = NETWORKS[: CHOSEN[options.extent]] if options.extent != "tiny" else (("gru", 1, 16),)
    rows = tuple(_row(cell, layers, hidden, SECONDS[options.extent]) for cell, layers, hidden in networks)
    columns = ("network", "one stream, characters/s", "x plain loop", "of bandwidth", "64 rows", "of peak", "bars")
    notes = (
        "One thread. Plain loop: nn.Embedding, nn.LSTM/GRU/RNN on one character, nn.Linear, softmax, multinomial, "
        "float32. Of bandwidth: the time to read the folded weights once from memory, at the speed at which "
        f"{READ_BYTES >> 20} MiB are summed, over the time of a character.",
        "Of peak: the floating-point operations per second of 64 rows over those of the first recurrent product of 64 "
        "rows, in the same precision. Operations as in training's table, forward alone, the table's look-up not "
        "counted.",
    )
    return [Report("Sampling, the engine alone", columns, rows, notes)]


def _row(cell: Cell, layers: int, hidden: int, seconds: float) -> tuple[str, ...]:
    request = {"cell": cell, "layers": layers, "hidden": hidden, "seconds": seconds}
    (medians,) = child.ask("benchmarks.sampling", request)
    model, name = ModelConfig(cell, hidden, layers, EMBEDDING), f"{cell} {layers}x{hidden}"
    one, many = medians["one"], medians["many"]
    plain, bandwidth = medians["plain"] / one, 100 * medians["read"] * medians["bytes"] / READ_BYTES / one
    product_flop = 2 * ROWS * hidden * GATES[cell] * hidden
    peak = 100 * (_forward_flop(model) * ROWS / many) / (product_flop / medians["product"])
    bars = [f"plain {at_least(plain, BARS[cell], 'x', 0)}"] if hidden == 512 else []
    if hidden == 512:
        bars.append(f"bandwidth {at_least(bandwidth, BANDWIDTH_BAR, ' %', 0)}")
    if name in PEAK_NETWORKS:
        bars.append(f"peak {at_least(peak, PEAK_BAR, ' %', 0)}")
    figures = (f"{1 / one:,.0f}", f"{plain:.1f}", f"{bandwidth:.0f}%", f"{ROWS / many:,.0f}", f"{peak:.0f}%")
    return (name, *figures, "; ".join(bars))


def _forward_flop(model: ModelConfig) -> float:
    """Of one character, without the first layer's input, which is looked up."""
    looked_up = 2 * GATES[model.cell] * model.hidden_size * model.embedding_size
    return step_flop(model, VOCABULARY, 1, 1) / 3 - looked_up


def main() -> None:
    asked = child.request()
    as_in_generation()
    model = ModelConfig(asked["cell"], asked["hidden"], asked["layers"], EMBEDDING)
    network = CharRNN(model, VOCABULARY).eval()
    one, many = writing(network, 1), writing(network, ROWS)
    memory = torch.zeros(READ_BYTES // 4)
    timings: dict[str, Callable[[], float]] = {
        "one": lambda: seconds_for_each(one),
        "many": lambda: seconds_for_each(many),
        "plain": _plain_loop(model),
        "read": lambda: timed(memory.sum),
        "product": _product(network, many.dtype),
    }
    with torch.inference_mode():
        medians = interleaved_medians(timings, asked["seconds"])
    child.answer([medians | {"bytes": one.bytes_per_character}])


def as_in_generation() -> None:
    """What the generation process sets for itself, and weights that are always the same."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)


def writing(network: CharRNN, rows: int) -> Stepper:
    """A stepper with so many rows, warm."""
    stepper = stepper_of(network)
    assert isinstance(stepper, Stepper)
    for row in range(rows):
        stepper.join(stepper.empty_state, 0, SamplingConfig(), noise_key(row, 0), 0)
    stepper.write(1)
    return stepper


def seconds_for_each(stepper: Stepper) -> float:
    """That the rows take for each of their next characters."""
    return timed(lambda: stepper.write(CHARACTERS)) / CHARACTERS


def _plain_loop(model: ModelConfig) -> Callable[[], float]:
    """Seconds for each character of the loop that tutorials have."""
    network = PlainNetwork(model, VOCABULARY).eval()
    state: State = None
    ids = torch.zeros(1, 1, dtype=torch.int64)

    def write() -> None:
        nonlocal state, ids
        for _ in range(CHARACTERS):
            logits_BTV, state = network(ids, state)
            ids = torch.multinomial(logits_BTV[:, -1].softmax(-1), 1)

    return lambda: timed(write) / CHARACTERS


def _product(network: CharRNN, dtype: torch.dtype) -> Callable[[], float]:
    matrix: Tensor = network.layers[0].weight_hh_l0.detach().to(dtype)  # type: ignore[union-attr, operator]
    weight = Weight(matrix, None, PACKED_FOR[dtype])
    values_BK = array_of(torch.randn(ROWS, matrix.shape[1]).to(dtype))

    def multiply() -> None:
        for _ in range(CHARACTERS):
            weight.times(values_BK)

    return lambda: timed(multiply) / CHARACTERS


if __name__ == "__main__":
    main()
