"""The GRU that trains on the CPU is PyTorch's, forward and back."""

import pytest
import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.gru import run_gru
from models.rnn import CharRNN


def outputs_and_gradients(layer: nn.GRU, steps: int, rows: int, *, by_hand: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(steps, rows, 5, generator=generator, dtype=torch.float64).requires_grad_()
    state = torch.randn(rows, 12, generator=generator, dtype=torch.float64).requires_grad_()
    if by_hand:
        outputs, last = run_gru(layer, values, state)
    else:
        outputs, last_1 = layer(values, state[None])
        last = last_1[0]
    weights = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    loss = (outputs * weights).sum() + last.pow(3).sum()
    return [outputs, last, *torch.autograd.grad(loss, [values, state, *layer.parameters()])]


@pytest.mark.parametrize(("steps", "rows"), [(9, 3), (1, 3), (9, 1), (1, 1)])
def test_outputs_and_gradients_are_those_of_pytorch(steps: int, rows: int) -> None:
    torch.manual_seed(0)
    layer = nn.GRU(5, 12).double()
    told = [outputs_and_gradients(layer, steps, rows, by_hand=by_hand) for by_hand in (True, False)]
    for ours, reference in zip(*told, strict=True):
        assert torch.allclose(ours, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("steps", "rows"), [(20, 4), (1, 4), (20, 1), (1, 1)])
@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-5), (True, 0.03)])
@pytest.mark.parametrize("all_of_it", [False, True], ids=["forward in autocast", "backward too"])
def test_a_network_that_trains_predicts_as_one_that_does_not(
    bfloat16: bool, tolerance: float, steps: int, rows: int, all_of_it: bool
) -> None:
    torch.manual_seed(0)
    network = CharRNN(ModelConfig(cell="gru", hidden_size=24, num_layers=2, embedding_size=8, dropout=0.0), 11)
    ids, state = torch.randint(11, (rows, steps)), torch.randn(2, 1, rows, 24)
    told = []
    for mode in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits, after = network.train(mode)(ids, state)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16 and all_of_it):
            gradients = torch.autograd.grad(logits.logsumexp(-1).sum() + after.sum(), list(network.parameters()))
        told.append([logits, after, *gradients])
    for ours, reference in zip(*told, strict=True):
        assert ours.dtype == reference.dtype == torch.float32
        assert (ours - reference).abs().max() <= tolerance * reference.abs().max()


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    layer = nn.GRU(5, 12)
    values = torch.randn(4, 2, 5, requires_grad=True)
    outputs, _ = run_gru(layer, values, torch.zeros(2, 12))
    (gradient,) = torch.autograd.grad(outputs.pow(2).sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
