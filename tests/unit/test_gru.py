"""The GRU that trains on the CPU is PyTorch's, forward and back."""

import pytest
import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.gru import run_gru
from models.rnn import CharRNN


def outputs_and_gradients(layer: nn.GRU, *, by_hand: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(9, 3, 5, generator=generator, dtype=torch.float64).requires_grad_()
    state = torch.randn(3, 12, generator=generator, dtype=torch.float64).requires_grad_()
    if by_hand:
        outputs, last = run_gru(layer, values, state)
    else:
        outputs, last_1 = layer(values, state[None])
        last = last_1[0]
    weights = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    loss = (outputs * weights).sum() + last.pow(3).sum()
    return [outputs, last, *torch.autograd.grad(loss, [values, state, *layer.parameters()])]


def test_outputs_and_gradients_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    layer = nn.GRU(5, 12).double()
    pairs = zip(outputs_and_gradients(layer, by_hand=True), outputs_and_gradients(layer, by_hand=False), strict=True)
    for ours, reference in pairs:
        assert torch.allclose(ours, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-5), (True, 0.03)])
def test_a_network_that_trains_predicts_as_one_that_does_not(bfloat16: bool, tolerance: float) -> None:
    torch.manual_seed(0)
    network = CharRNN(ModelConfig(cell="gru", hidden_size=24, num_layers=2, embedding_size=8, dropout=0.0), 11)
    ids, state = torch.randint(11, (4, 20)), torch.randn(2, 1, 4, 24)
    told = []
    for mode in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits, after = network.train(mode)(ids, state)
        gradients = torch.autograd.grad(logits.logsumexp(-1).sum() + after.sum(), list(network.parameters()))
        told.append([logits, after, *gradients])
    for ours, reference in zip(*told, strict=True):
        assert ours.dtype == reference.dtype == torch.float32
        assert (ours - reference).abs().max() <= tolerance * reference.abs().max()
