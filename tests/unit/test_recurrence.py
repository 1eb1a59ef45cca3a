"""The layers that train on the CPU are PyTorch's, forward and back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import arithmetic, cells, gates, products, recurrence, torch_calls, walks
from models.config import CELLS, ModelConfig
from models.recurrence import linear, run_layer
from models.rnn import CharRNN

ROOT = Path(__file__).parents[2]


def layer_of(cell: str, inputs: int, hidden: int) -> nn.RNNBase:
    if cell.startswith("rnn_"):
        return nn.RNN(inputs, hidden, nonlinearity=cell.removeprefix("rnn_"), batch_first=True)
    return {"gru": nn.GRU, "lstm": nn.LSTM}[cell](inputs, hidden, batch_first=True)


def by_pytorch(layer: nn.RNNBase, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(layer, nn.LSTM):
        return layer(values, state)
    outputs, (hidden, cell) = layer(values, (state[:1], state[1:]))
    return outputs, torch.cat((hidden, cell))


def outputs_and_gradients(layer: nn.RNNBase, steps: int, rows: int, *, by_hand: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(rows, steps, 5, generator=generator).requires_grad_()
    parts = 2 if isinstance(layer, nn.LSTM) else 1
    state = torch.randn(parts, rows, 12, generator=generator).requires_grad_()
    outputs, last = (run_layer if by_hand else by_pytorch)(layer, values, state)
    weights = torch.randn(outputs.shape, generator=generator)
    loss = (outputs * weights).sum() + last.pow(3).sum()
    return [outputs, last, *torch.autograd.grad(loss, [values, state, *layer.parameters()])]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "rows"), [(9, 3), (1, 3), (9, 1), (1, 1), (3, 40)])
def test_outputs_and_gradients_are_those_of_pytorch(cell: str, steps: int, rows: int) -> None:
    torch.manual_seed(0)
    layer = layer_of(cell, 5, 12)
    told = [outputs_and_gradients(layer, steps, rows, by_hand=by_hand) for by_hand in (True, False)]
    for ours, reference in zip(*told, strict=True):
        assert (ours - reference).abs().max() <= 2e-6 * max(1, reference.abs().max())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("by_onednn", [True, False], ids=["by oneDNN where it can", "by torch's linear"])
def test_a_layer_in_float32_stays_so_on_the_way_back_in_autocast(
    cell: str, by_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_onednn:
        monkeypatch.setattr(products, "_way", lambda *_: torch_calls.PLAIN)
        monkeypatch.setattr(recurrence, "onednn_multiplies", lambda _: False)
    torch.manual_seed(0)
    layer, told = layer_of(cell, 5, 12), []
    for casting in (False, True):
        outputs, _ = run_layer(layer, torch.ones(3, 9, 5), torch.zeros(2 if cell == "lstm" else 1, 3, 12))
        with torch.autocast("cpu", torch.bfloat16, enabled=casting):
            told.append(torch.autograd.grad(outputs.sum(), list(layer.parameters())))
    for right, ours in zip(*told, strict=True):
        assert torch.equal(right, ours)


@pytest.mark.parametrize(("inputs", "width"), [(7, 40), (40, 7), (12, 12)], ids=["wider", "narrower", "square"])
def test_an_output_layer_and_its_gradients_are_those_of_pytorch(inputs: int, width: int) -> None:
    torch.manual_seed(0)
    output = nn.Linear(inputs, width)
    values = torch.randn(9, 3, inputs).transpose(0, 1).requires_grad_()  # as layers leave them
    weights = torch.randn(3, 9, width)
    told = []
    for function in (linear, F.linear):
        sums = function(values, output.weight, output.bias)
        told.append([sums, *torch.autograd.grad((sums * weights).sum(), [values, *output.parameters()])])
    for ours, reference in zip(*told, strict=True):
        assert ours.shape == reference.shape
        assert ours.is_contiguous() or ours.dim() == 3  # what an optimizer gets lies as the weight does
        assert (ours - reference).abs().max() <= 2e-6 * max(1, reference.abs().max())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "rows"), [(20, 4), (2, 3), (20, 1), (2, 1)])
@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-5), (True, 0.03)])
@pytest.mark.parametrize("all_of_it", [False, True], ids=["forward in autocast", "backward too"])
def test_a_fast_network_predicts_and_learns_as_pytorchs(
    cell: str, bfloat16: bool, tolerance: float, steps: int, rows: int, all_of_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more characters in a step than the vocabulary has, and with fewer."""
    torch.manual_seed(0)
    layers: list[str] = []
    for name in ("run_first_layer", "run_layer"):
        real = getattr(recurrence, name)
        monkeypatch.setattr(recurrence, name, lambda *a, name=name, real=real: layers.append(name) or real(*a))
    network = CharRNN(ModelConfig(cell=cell, hidden_size=24, num_layers=2, embedding_size=8, dropout=0.0), 11)
    ids, state = torch.randint(11, (rows, steps)), 0.5 * torch.randn(2, 2 if cell == "lstm" else 1, rows, 24)
    told = []
    for network.fast in (True, False):
        # The reference multiplies in float32: PyTorch's own bfloat16 rounds the gates too.
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16 and network.fast):
            logits, after = network(ids, state)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16 and network.fast and all_of_it):
            gradients = torch.autograd.grad(logits.logsumexp(-1).sum() + after.sum(), list(network.parameters()))
        told.append([logits, after, *gradients])
    assert layers == ["run_first_layer", *(["run_layer"] if steps * rows < 11 else []), "run_layer"]
    for ours, reference in zip(*told, strict=True):
        assert ours.dtype == reference.dtype == torch.float32
        assert (ours - reference).norm() <= tolerance * reference.norm()


@contextmanager
def computing_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("threads", "rows", "parts"), [(2, 17, 2), (3, 40, 3), (8, 40, 5), (2, 15, 1)])
def test_threads_with_rows_of_their_own_compute_what_one_does(
    cell: str, threads: int, rows: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = layer_of(cell, 5, 12)
    walked: list[int] = []
    monkeypatch.setattr(cells, "threads_for", lambda n, real=cells.threads_for: walked.append(real(n)) or walked[-1])
    with computing_threads(threads):
        several = outputs_and_gradients(layer, 6, rows, by_hand=True)
        assert torch.get_num_threads() == threads
    with computing_threads(1):
        alone = outputs_and_gradients(layer, 6, rows, by_hand=True)
    assert set(walked) == {parts, 1}
    for ours, reference in zip(several, alone, strict=True):
        assert (ours - reference).abs().max() <= 2e-6 * max(1, reference.abs().max())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("vocabulary", [11, 500], ids=["by a table", "by every character"])
def test_a_network_learns_the_same_in_several_threads(cell: str, vocabulary: int) -> None:
    told = []
    for threads in (1, 3):
        torch.manual_seed(0)
        network = CharRNN(ModelConfig(cell=cell, hidden_size=24, embedding_size=8, dropout=0.0), vocabulary)
        network.fast = True
        with computing_threads(threads):
            logits, _ = network(torch.randint(vocabulary, (24, 6)), network.initial_state(24))
            told.append(torch.autograd.grad(logits.logsumexp(-1).sum(), list(network.parameters())))
    for alone, several in zip(*told, strict=True):
        assert (alone - several).abs().max() <= 2e-6 * max(1, alone.abs().max())


@pytest.mark.parametrize("wrong", [-1, 11])
def test_a_character_that_is_not_known_is_refused(wrong: int) -> None:
    network = CharRNN(ModelConfig(hidden_size=8, embedding_size=4), 11)
    network.fast = True
    with pytest.raises(IndexError, match="11 characters"):
        network(torch.tensor([[0, wrong] * 8]), network.initial_state(1))


def test_the_reason_of_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory is told from other errors by it."""
    layer = layer_of("gru", 5, 12)
    monkeypatch.setattr(products, "_way", lambda *_: torch_calls.PLAIN)
    wrong = recurrence.Weight(torch.randn(36, 12), None, 3)
    wrong.numbers[torch_calls.TYPE] = torch_calls.TORCH.aoti_torch_dtype_int32()
    monkeypatch.setattr(recurrence, "Weight", lambda *_: wrong)
    with pytest.raises(RuntimeError, match="torch refused a product: expected m1 and m2"):
        run_layer(layer, torch.randn(3, 4, 5), torch.zeros(1, 3, 12))


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001])
def test_no_nan_becomes_a_number_in_bfloat16(bits: int) -> None:
    value, row = np.array([[bits]], np.uint32).view(np.float32), np.zeros((1, 1), np.float32)
    out = np.zeros((2, 1, 1), np.uint16)
    gates.relu_forward(0, 0, value, out, row, np.zeros((1, 1), np.int64), np.zeros((1, 1, 1), np.float32))
    assert torch.from_numpy(out).view(torch.bfloat16)[1].isnan().all()


@pytest.mark.parametrize("flushes", [True, False])
def test_a_thread_that_helps_treats_denormal_numbers_as_its_caller_does(flushes: bool) -> None:
    if not torch.set_flush_denormal(flushes):
        pytest.skip("this processor knows no such mode")
    told: list[bool] = []
    try:
        with computing_threads(2):
            cells._in_threads(lambda _first, _last: told.append(cells._flushes_denormals()), 2, 2)
    finally:
        torch.set_flush_denormal(False)
    assert told == [flushes, flushes]


@pytest.mark.parametrize("cell", CELLS)
def test_an_error_in_a_thread_is_told(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = {"rnn_tanh": "tanh", "rnn_relu": "relu"}.get(cell, cell) + "_forward"
    real = getattr(walks, walk)

    def failing(numbers: Any, first: int, *others: Any) -> None:
        real(numbers, first, *others)
        if first:
            raise ZeroDivisionError

    monkeypatch.setattr(walks, walk, failing)
    for name, vanilla in (("_TANH", "tanh"), ("_RELU", "relu")):
        failing_cell = cells._Vanilla(getattr(walks, f"{vanilla}_forward"), getattr(walks, f"{vanilla}_backward"))
        monkeypatch.setattr(cells, name, failing_cell)
    with computing_threads(2), pytest.raises(ZeroDivisionError):
        outputs_and_gradients(layer_of(cell, 5, 12), 6, 20, by_hand=True)


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    values = torch.randn(2, 4, 5, requires_grad=True)
    outputs, _ = run_layer(nn.GRU(5, 12, batch_first=True), values, torch.zeros(1, 2, 12))
    (gradient,) = torch.autograd.grad(outputs.pow(2).sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_no_number_is_not_hidden(cell: str) -> None:
    values = torch.randn(1, 3, 5)
    values[0, 1, 2] = torch.nan
    outputs, _ = run_layer(layer_of(cell, 5, 12), values, torch.zeros(2 if cell == "lstm" else 1, 1, 12))
    assert outputs[0, 0].isfinite().all()
    assert outputs[0, 1:].isnan().all()


def test_the_sigmoid_is_right_everywhere() -> None:
    x = np.concatenate((np.linspace(-120, 120, 4001), [-np.inf, np.inf, 0.0, 1e-30, -1e30])).astype(np.float32)
    right = 1 / (1 + np.exp(-x.astype(np.float64).clip(-500, 500)))
    ours = np.array([arithmetic.sigmoid(value) for value in x])
    assert np.abs(ours - right).max() < 2e-7
    near = right > 1e-35  # below, float32 has fewer digits or none
    assert (np.abs(ours - right)[near] / right[near]).max() < 4e-6
    assert np.isnan(arithmetic.sigmoid(np.float32("nan")))


TRAIN = """
from models.config import CELLS, ModelConfig, TrainingConfig
from worker.batches import Corpus
from worker.trainer import train
text = "to be, or not to be, that is the question\\n" * 100
for precision in ("float32", "bfloat16"):
    for cell in CELLS:
        for embedding_size, hidden_size in ((8, 24), (48, 16)):
            model = ModelConfig(cell=cell, num_layers=2, embedding_size=embedding_size, hidden_size=hidden_size)
            training = TrainingConfig(
                steps=2, batch_size=8, sequence_length=16, evaluate_every=1, precision=precision
            )
            list(train(model, training, Corpus.of(text)))
"""


def test_no_product_of_training_is_left_to_a_reference_loop() -> None:
    """oneDNN has one for whatever it has no kernel for, thousands of times as slow: a GRU's gradients were its."""
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", TRAIN], cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    multiplied = [line for line in done.stdout.splitlines() if ",exec,cpu,inner_product," in line or ",matmul," in line]
    assert [line for line in multiplied if ",ref" in line] == []
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert multiplied, "else there was nothing to look at"
