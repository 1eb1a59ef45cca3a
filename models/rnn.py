"""CharRNN: the network, from ids of characters to logits of the next ones.

Knows neither texts nor training nor files. Invariants: its parameters are exactly `ModelConfig.parameter_shapes`; its
whole past is the one state tensor that `forward` takes and returns, so that whoever holds it can go on from there.

Shape suffixes: B rows (lanes or streams), T time steps, H hidden, X embedding or hidden, V vocabulary, L layers,
G gates, P parts of a layer's state (1; for the LSTM 2: hidden, cell).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import GATES, ModelConfig

FORGET_BIAS = -1.0
"""Of an LSTM, at first: a cell keeps a quarter of its memory from one character to the next until it learns better. Of
characters the last few tell most; with 1, as is usual for words (Jozefowicz et al. 2015), it learns far more slowly
(docs/recipe.md)."""


class CharRNN(nn.Module):
    """Embedding, stacked recurrent layers, dropout after each of them, and a linear output over the vocabulary.

    Dropout is a module of our own between single-layer networks: cuDNN's keeps a random state that cannot be saved, and
    a resumed training would differ. It acts in `train()` mode alone and draws from torch's global generator, as the
    initial weights do.

    `fast` lets sequences on the CPU run through models.recurrence: for training and evaluation. It compiles on first
    use and lays weights out at each call, which does not pay for a character at a time.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        widths = [config.embedding_size] + [config.hidden_size] * (config.num_layers - 1)
        self.embedding = nn.Embedding(
            vocabulary_size, config.embedding_size, _weight=_standard_normal(vocabulary_size, config.embedding_size)
        )
        self.layers = nn.ModuleList(_layer(config, width) for width in widths)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, vocabulary_size)
        self.fast = False
        _initialize(self)

    def initial_state(self, rows: int, device: torch.device | str | None = None) -> Tensor:
        """The state before the first character: float32 zeros [num_layers, parts, rows, hidden_size]."""
        parts = 2 if self.config.cell == "lstm" else 1
        return torch.zeros(self.config.num_layers, parts, rows, self.config.hidden_size, device=device)

    def forward(self, ids_BT: Tensor, state_LPBH: Tensor) -> tuple[Tensor, Tensor]:
        """Logits after every character, float32 [rows, steps, vocabulary], and the state after the last, float32.

        `softmax(logits_BTV[b, t])` is the distribution of the character after `ids_BT[b, t]`. Under autocast products
        are in its type; what is returned is float32 all the same.
        """
        values_BTH, after_LPBH = self.read(ids_BT, state_LPBH)
        return self.logits(values_BTH), after_LPBH

    def read(self, ids_BT: Tensor, state_LPBH: Tensor) -> tuple[Tensor, Tensor]:
        """What `logits` takes [rows, steps, hidden], in autocast's type, and the state as `forward`."""
        if self.fast and ids_BT.device.type == "cpu" and ids_BT.shape[1] > 1:
            run, run_first, _ = _fast()
        else:
            run, run_first = _run, _run_first
        first, *others = self.layers
        values_BTH, after_PBH = run_first(first, ids_BT, self.embedding.weight, state_LPBH[0])
        states = [after_PBH]
        for layer, state_PBH in zip(others, state_LPBH[1:], strict=True):
            values_BTH, after_PBH = run(layer, self.dropout(values_BTH), state_PBH)
            states.append(after_PBH)
        return self.dropout(values_BTH), torch.stack(states).float()

    def logits(self, values_BTH: Tensor) -> Tensor:
        """Float32 [rows, steps, vocabulary], of what `read` gave. Adjacent in memory are the rows of a time step."""
        values_TBH = values_BTH.transpose(0, 1)  # as layers leave them: in the other order they would be copied
        if self.fast and values_BTH.device.type == "cpu":
            _, _, multiply = _fast()
            logits_TBV = multiply(values_TBH, self.output.weight, self.output.bias)
        else:
            logits_TBV = self.output(values_TBH)
        return logits_TBV.transpose(0, 1).float()  # type: ignore[no-any-return]


def _standard_normal(rows: int, width: int) -> Tensor:
    """Initial embeddings; on the meta device none: `normal_` there imports torch._dynamo, a second and 80 MB."""
    values = torch.empty(rows, width)
    return values if values.is_meta else values.normal_()


def _layer(config: ModelConfig, width: int) -> nn.RNNBase:
    if config.cell == "lstm":
        return nn.LSTM(width, config.hidden_size, batch_first=True)
    if config.cell == "gru":
        return nn.GRU(width, config.hidden_size, batch_first=True)
    nonlinearity = config.cell.removeprefix("rnn_")
    return nn.RNN(width, config.hidden_size, nonlinearity=nonlinearity, batch_first=True)


def _fast() -> tuple[Any, Any, Any]:
    from models.recurrence import (
        linear,
        run_first_layer,
        run_layer,
    )  # they bring a compiler along, which the network alone does not need

    return run_layer, run_first_layer, linear


def _run_first(layer: nn.Module, ids_BT: Tensor, embedding_VX: Tensor, state_PBH: Tensor) -> tuple[Tensor, Tensor]:
    """As `_run`, on the embeddings of ids."""
    return _run(layer, F.embedding(ids_BT, embedding_VX), state_PBH)


def _run(layer: nn.Module, values_BTX: Tensor, state_PBH: Tensor) -> tuple[Tensor, Tensor]:
    """One layer over all time steps: its outputs [B, T, H] and its last state [P, B, H]."""
    if not isinstance(layer, nn.LSTM):
        values_BTH, after_1BH = layer(values_BTX, state_PBH)
        return values_BTH, after_1BH
    hidden_BH, cell_BH = state_PBH
    state = (hidden_BH[None].contiguous(), cell_BH[None].contiguous())
    if torch.is_autocast_enabled("cpu") and not _lstm_takes_bfloat16():
        with torch.autocast("cpu", enabled=False):
            values_BTH, (hidden_1BH, cell_1BH) = layer(values_BTX, state)
    else:
        values_BTH, (hidden_1BH, cell_1BH) = layer(values_BTX, state)
    return values_BTH, torch.cat((hidden_1BH, cell_1BH))


def _lstm_takes_bfloat16() -> bool:
    """Whether autocast may be on around nn.LSTM on this CPU: without such instructions it fails, where other cells do
    with slower ones."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return not available or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.no_grad()
def _initialize(network: CharRNN) -> None:
    """Weights uniform in +-1/sqrt(hidden_size), embeddings standard normal, biases 0, with two exceptions.

    LSTM: the forget gate's bias starts at `FORGET_BIAS`. ReLU: the recurrent matrix starts as half the identity (scaled
    from Le, Jaitly and Hinton 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units"): with
    the whole identity a state that is carried over thousands of characters grows without bound.
    """
    hidden_size, cell = network.config.hidden_size, network.config.cell
    bound = 1 / math.sqrt(hidden_size)
    for name, parameter in network.named_parameters():
        if name == "embedding.weight":
            continue
        if "bias" in name:
            parameter.zero_()
        else:
            parameter.uniform_(-bound, bound)
        if cell == "lstm" and name.endswith("bias_ih_l0"):
            gates_GH = parameter.view(GATES["lstm"], hidden_size)
            gates_GH[1].fill_(FORGET_BIAS)  # PyTorch's order: input, forget, cell, output
        elif cell == "rnn_relu" and name.endswith("weight_hh_l0"):
            parameter.copy_(0.5 * torch.eye(hidden_size, device=parameter.device))
