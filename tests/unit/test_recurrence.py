"""The layers that train on the CPU are PyTorch's, forward and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import gates, recurrence, walks
from models.config import CELLS, ModelConfig
from models.recurrence import run_layer
from models.rnn import CharRNN


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
@pytest.mark.parametrize(("steps", "rows"), [(20, 4), (1, 4), (20, 1), (1, 1)])
@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-5), (True, 0.03)])
@pytest.mark.parametrize("all_of_it", [False, True], ids=["forward in autocast", "backward too"])
def test_a_fast_network_predicts_and_learns_as_pytorchs(
    cell: str, bfloat16: bool, tolerance: float, steps: int, rows: int, all_of_it: bool
) -> None:
    torch.manual_seed(0)
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
    monkeypatch.setattr(
        recurrence, "_threads_for", lambda n, real=recurrence._threads_for: walked.append(real(n)) or walked[-1]
    )
    with computing_threads(threads):
        several = outputs_and_gradients(layer, 6, rows, by_hand=True)
        assert torch.get_num_threads() == threads
    with computing_threads(1):
        alone = outputs_and_gradients(layer, 6, rows, by_hand=True)
    assert set(walked) == {parts, 1}
    for ours, reference in zip(several, alone, strict=True):
        assert (ours - reference).abs().max() <= 2e-6 * max(1, reference.abs().max())


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
        cells = recurrence._Vanilla(getattr(walks, f"{vanilla}_forward"), getattr(walks, f"{vanilla}_backward"))
        monkeypatch.setattr(recurrence, name, cells)
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
    ours = np.array([gates.sigmoid(value) for value in x])
    assert np.abs(ours - right).max() < 2e-7
    near = right > 1e-35  # below, float32 has fewer digits or none
    assert (np.abs(ours - right)[near] / right[near]).max() < 4e-6
    assert np.isnan(gates.sigmoid(np.float32("nan")))
