"""The network as PyTorch's modules have it, in float32: what our training step is measured against.

Knows nothing of how ours is computed. It reads the same lanes, carries its state, clips and takes the same optimizer.

Shape suffixes: B lanes, T time steps, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import ModelConfig
from worker.batches import Lanes

State = Tensor | tuple[Tensor, Tensor] | None


class PlainNetwork(nn.Module):
    """nn.Embedding, nn.LSTM, nn.GRU or nn.RNN, nn.Linear."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, model.embedding_size)
        self.recurrence = _recurrence(model)
        self.output = nn.Linear(model.hidden_size, vocabulary_size)

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        values_BTH, state = self.recurrence(self.embedding(ids_BT), state)
        return self.output(values_BTH), state


def _recurrence(model: ModelConfig) -> nn.RNNBase:
    sizes = (model.embedding_size, model.hidden_size, model.num_layers)
    if model.cell == "lstm":
        return nn.LSTM(*sizes, batch_first=True)
    if model.cell == "gru":
        return nn.GRU(*sizes, batch_first=True)
    return nn.RNN(*sizes, nonlinearity=model.cell.removeprefix("rnn_"), batch_first=True)


def plain_step(model: ModelConfig, vocabulary_size: int, lanes: Lanes) -> Callable[[], float]:
    """Each call trains one step more and gives its loss."""
    network = PlainNetwork(model, vocabulary_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    step, state = 0, None

    def advance() -> float:
        nonlocal step, state
        batch = lanes.read(step)
        logits_BTV, after = network(torch.from_numpy(batch.inputs_BT), state)
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), torch.from_numpy(batch.targets_BT).flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step, state = step + 1, _detached(after)
        return loss.item()

    return advance


def _detached(state: State) -> State:
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
