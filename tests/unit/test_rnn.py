"""The network is the tutorial's, its gradient is backpropagation through time, and gates keep gradients alive.

Shape suffixes: T time steps, H hidden, V vocabulary.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import rnn
from models.config import CELLS, Cell, ModelConfig
from models.rnn import CharRNN

VOCABULARY = 7


def network_of(cell: Cell, **settings: object) -> CharRNN:
    torch.manual_seed(1)
    config = ModelConfig(**{"cell": cell, "hidden_size": 12, "embedding_size": 5, "dropout": 0.0, **settings})  # type: ignore[arg-type]
    return CharRNN(config, VOCABULARY)


def reference_chances(network: CharRNN, ids: list[int]) -> Tensor:
    """The tutorial, line by line: h_t = tanh(W_hx x_t + W_hh h_{t-1} + b_h), y_t = softmax(W_yh h_t + b_y)."""
    weights = network.state_dict()
    W_hx, W_hh = weights["layers.0.weight_ih_l0"], weights["layers.0.weight_hh_l0"]
    b_h = weights["layers.0.bias_ih_l0"] + weights["layers.0.bias_hh_l0"]
    W_yh, b_y = weights["output.weight"], weights["output.bias"]
    h, chances = torch.zeros(W_hh.shape[0], dtype=W_hh.dtype), []
    for x in weights["embedding.weight"][ids]:
        h = torch.tanh(W_hx @ x + W_hh @ h + b_h)
        chances.append(torch.softmax(W_yh @ h + b_y, dim=0))
    return torch.stack(chances)


def test_rnn_tanh_is_the_tutorials_equations_step_by_step() -> None:
    network = network_of("rnn_tanh").double()
    for bias in (network.layers[0].bias_ih_l0, network.layers[0].bias_hh_l0, network.output.bias):
        torch.nn.init.normal_(bias)
    ids = [3, 1, 4, 1, 5, 2, 6]
    logits, state = network(torch.tensor([ids]), network.initial_state(1).double())
    expected = reference_chances(network, ids)
    assert torch.allclose(torch.softmax(logits[0].double(), -1), expected, atol=1e-6)
    assert state.shape == (1, 1, 1, 12)


def test_backpropagation_through_time_by_hand_gives_autograds_gradients() -> None:
    network = network_of("rnn_tanh")
    ids = torch.tensor([3, 1, 4, 1, 5, 2, 6, 5])
    logits, _ = network(ids[None, :-1], network.initial_state(1))
    F.cross_entropy(logits[0], ids[1:], reduction="sum").backward()
    by_hand = gradients_by_hand(network, ids[:-1], ids[1:])
    for name, gradient in by_hand.items():
        assert torch.allclose(network.get_parameter(name).grad, gradient, atol=1e-5), name


@torch.no_grad()
def gradients_by_hand(network: CharRNN, inputs_T: Tensor, targets_T: Tensor) -> dict[str, Tensor]:
    """d(sum over t of -log y_t[target_t]) by the chain rule, from the last time step to the first."""
    w = {name: parameter.detach() for name, parameter in network.named_parameters()}
    x = w["embedding.weight"][inputs_T]
    b_h = w["layers.0.bias_ih_l0"] + w["layers.0.bias_hh_l0"]
    h = [torch.zeros_like(b_h)]
    for x_t in x:
        h.append(torch.tanh(w["layers.0.weight_ih_l0"] @ x_t + w["layers.0.weight_hh_l0"] @ h[-1] + b_h))
    g = {name: torch.zeros_like(tensor) for name, tensor in w.items()}
    from_later_H = torch.zeros_like(b_h)
    for t in reversed(range(len(inputs_T))):
        d_logits_V = torch.softmax(w["output.weight"] @ h[t + 1] + w["output.bias"], 0)
        d_logits_V[targets_T[t]] -= 1
        g["output.weight"] += torch.outer(d_logits_V, h[t + 1])
        g["output.bias"] += d_logits_V
        d_sum_H = (w["output.weight"].T @ d_logits_V + from_later_H) * (1 - h[t + 1] ** 2)
        g["layers.0.weight_ih_l0"] += torch.outer(d_sum_H, x[t])
        g["layers.0.weight_hh_l0"] += torch.outer(d_sum_H, h[t])
        g["layers.0.bias_ih_l0"] += d_sum_H
        g["layers.0.bias_hh_l0"] += d_sum_H
        g["embedding.weight"][inputs_T[t]] += w["layers.0.weight_ih_l0"].T @ d_sum_H
        from_later_H = w["layers.0.weight_hh_l0"].T @ d_sum_H
    return g


def gradient_reaching_back(cell: Cell, steps: int, forget_bias: float = 0.0) -> float:
    """Norm of d(loss at the last step alone) / d(state `steps` before it)."""
    network = network_of(cell, hidden_size=64, embedding_size=16).double()
    if cell == "lstm":
        network.get_parameter("layers.0.bias_ih_l0").data.view(4, 64)[1].fill_(forget_bias)
    ids = torch.randint(VOCABULARY, (1, steps + 1), generator=torch.Generator().manual_seed(2))
    state = network.initial_state(1).double().requires_grad_()
    logits, _ = network(ids[:, :-1], state)
    F.cross_entropy(logits[0, -1:], ids[0, -1:]).backward()
    assert state.grad is not None
    return float(state.grad.norm())


def test_the_gradient_100_steps_back_all_but_vanishes_in_a_tanh_network_and_less_so_in_an_lstm() -> None:
    """One whose forget gate stands open, as it learns to let it where memory pays."""
    plain, gated = gradient_reaching_back("rnn_tanh", 100), gradient_reaching_back("lstm", 100, forget_bias=1.0)
    assert 0 < plain < 1e-4 * gated
    assert gradient_reaching_back("rnn_tanh", 2) > 1e6 * plain


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_the_parameters_are_those_that_the_configuration_tells(cell: Cell, layers: int) -> None:
    network = network_of(cell, num_layers=layers)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == network.config.parameter_shapes(VOCABULARY)
    assert sum(p.numel() for p in network.parameters()) == network.config.parameter_count(VOCABULARY)


@pytest.mark.parametrize("cell", CELLS)
def test_a_text_read_in_two_parts_is_the_text_read_at_once(cell: Cell) -> None:
    network = network_of(cell, num_layers=2).eval()
    ids = torch.randint(VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(3))
    whole, end = network(ids, network.initial_state(3))
    first, state = network(ids[:, :4], network.initial_state(3))
    second, end_of_second = network(ids[:, 4:], state)
    assert torch.allclose(whole, torch.cat((first, second), 1), atol=1e-6)
    assert torch.allclose(end, end_of_second, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_logits_and_state_are_float32_under_autocast(cell: Cell) -> None:
    network = network_of(cell, num_layers=2)
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = network(torch.zeros(2, 3, dtype=torch.int64), network.initial_state(2))
    assert (logits.dtype, state.dtype) == (torch.float32, torch.float32)
    assert state.shape == network.initial_state(2).shape


@pytest.mark.parametrize("cell", CELLS)
def test_sequences_of_one_character_train_in_bfloat16_whatever_the_cpu_has(cell: Cell) -> None:
    network = network_of(cell, num_layers=2).train()
    network.fast = True
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = network(torch.zeros(2, 1, dtype=torch.int64), network.initial_state(2))
    logits.sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_lstms_forget_gate_begins_nearly_closed() -> None:
    layer = network_of("lstm").layers[0]
    input_gate, forget_gate, cell, output_gate = layer.bias_ih_l0.view(4, 12)
    assert torch.equal(forget_gate, torch.full((12,), -1.0))
    for bias in (input_gate, cell, output_gate, layer.bias_hh_l0):
        assert not bias.any()


def test_dropout_acts_in_training_alone() -> None:
    network = network_of("gru", dropout=0.5)
    ids, state = torch.zeros(1, 9, dtype=torch.int64), network.initial_state(1)
    assert not torch.equal(network(ids, state)[0], network(ids, state)[0])
    network.eval()
    assert torch.equal(network(ids, state)[0], network(ids, state)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_acts_between_layers_and_before_the_output_and_nowhere_else(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(cell, num_layers=3, dropout=0.5, hidden_size=64)
    read: list[Tensor] = []

    def run(layer: torch.nn.Module, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        read.append(values)
        return run_layer(layer, values, state)

    run_layer = rnn._run
    monkeypatch.setattr(rnn, "_run", run)
    network.output.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    torch.nn.init.normal_(network.layers[0].bias_ih_l0)  # a ReLU's zeros are few enough then
    network(torch.zeros(4, 32, dtype=torch.int64), network.initial_state(4))
    embedded, *between = [float((values == 0).float().mean()) for values in read]
    assert embedded == 0
    assert len(between) == 3
    if cell == "rnn_relu":
        assert all(zeros > 0.5 for zeros in between)
    else:  # 8,192 draws: five standard deviations are 0.028, missed once in a million
        assert between == pytest.approx([0.5] * 3, abs=0.028)


def test_an_untrained_relu_networks_state_stays_bounded_over_thousands_of_characters() -> None:
    network = network_of("rnn_relu", hidden_size=64)
    with torch.no_grad():
        _, state = network(torch.zeros(1, 5_000, dtype=torch.int64), network.initial_state(1))
    assert 0 < state.max() < 100
