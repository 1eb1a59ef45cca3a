"""One step of truncated backpropagation through time, and everything that it changes.

Knows no plan, no events and no clock. Invariant: `tensors()` put back by `load()` makes the next updates those that
would have followed, to the bit, on the same machine and thread count.

Shape suffixes: B lanes, T time steps, V vocabulary; state_LPBH (layers, parts, lanes, hidden) as in models.rnn.
"""

import copy
import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import ModelConfig, TrainingConfig
from models.precision import resolve_precision
from models.rnn import CharRNN
from worker.batches import Lanes
from worker.precision import multiplying_in
from worker.sampled_softmax import SampledSoftmax

BETAS = (0.9, 0.99)
"""AdamW's. The second forgets faster than usual: a run of a minute has a few hundred steps."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter, by torch's names."""


class Diverged(RuntimeError):
    """A loss, a gradient, a weight or an answer is no finite number. Nothing of that is saved."""

    def __init__(self, what: str, step: int, advice: str = "") -> None:
        super().__init__(f"the {what} after {step} steps is not a finite number{advice}")
        self.what, self.step = what, step


class Update(NamedTuple):
    """What one step saw: mean loss in nats per character, L2 norm of the gradient before clipping, characters read."""

    loss: float
    gradient_norm: float
    characters: int


class Learner:
    """Network, optimizer, lanes and the state that they carry. Draws from torch's global generator, seeded here."""

    def __init__(
        self, model: ModelConfig, training: TrainingConfig, vocabulary_size: int, lanes: Lanes, device: str
    ) -> None:
        self.precision = resolve_precision(training.precision, device)
        self.lanes = lanes
        self._gradient_clip = training.gradient_clip
        self._average_decay = training.average_decay
        self._state_reset = training.state_reset
        self._device = torch.device(device)
        _compile(model, self.precision, device)
        torch.manual_seed(training.seed)
        self.network = CharRNN(model, vocabulary_size).to(device).train()
        self.network.fast = True
        self._average: CharRNN | None = None
        self._optimizer = _optimizer(self.network, training)
        self._sampled: SampledSoftmax | None = None
        if training.softmax_samples:
            samples, decay = training.softmax_samples, training.weight_decay
            self._sampled = SampledSoftmax(self.network.output, samples, decay, BETAS)
        self._state_LPBH = self.network.initial_state(lanes.lanes, device)

    @property
    def result(self) -> CharRNN:
        """The network to evaluate, sample and save: averaged weights where they are asked for, else training's own."""
        return self.network if self._average is None else self._average

    def update(self, step: int, learning_rate: float) -> Update:
        """The update that follows `step` steps: loss over every time step, clipped gradient, AdamW.

        Gradients flow back to the window's first character and no further; the state flows on. Raises Diverged.
        """
        batch = self.lanes.read(step)
        self._begin_anew(batch.wraps)
        loss, state_LPBH = self._loss(torch.from_numpy(batch.inputs_BT), torch.from_numpy(batch.targets_BT))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        chosen = self._sampled.chosen.values() if self._sampled is not None else ()
        norm = nn.utils.clip_grad_norm_([*self.network.parameters(), *chosen], self._gradient_clip)
        loss_value, norm_value = torch.stack((loss.detach(), norm)).tolist()  # one wait for the device, not two
        for what, value in (("training loss", loss_value), ("gradient", norm_value)):
            if not math.isfinite(value):
                raise Diverged(what, step)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if self._average is None and self._average_decay:
            self._average = _frozen_copy(self.network)
        self._optimizer.step()
        if self._sampled is not None:
            self._sampled.step(learning_rate, self._optimizer.state)
        self._state_LPBH = state_LPBH.detach()
        if self._average is not None:
            _follow(self._average, self.network, decay_at(step + 1, self._average_decay))
        return Update(loss_value, norm_value, batch.targets_BT.size)

    def _begin_anew(self, wraps: bool) -> None:
        """Empty the state of all lanes, when they wrap, or of some by chance."""
        if wraps:
            self._state_LPBH = torch.zeros_like(self._state_LPBH)
        elif self._state_reset:
            goes_on_B = torch.rand(self.lanes.lanes) >= self._state_reset
            self._state_LPBH = self._state_LPBH * goes_on_B.to(self._device)[:, None]

    def _loss(self, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over all characters. Time goes before lanes, as in the network's memory."""
        targets_N = targets_BT.to(self._device).t().flatten()
        with multiplying_in(self.precision, self._device.type):
            values_BTH, state_LPBH = self.network.read(inputs_BT.to(self._device), self._state_LPBH)
            if self._sampled is not None:
                values_NH = values_BTH.transpose(0, 1).flatten(0, 1)
                return self._sampled.loss(values_NH, targets_N), state_LPBH
            logits_BTV = self.network.logits(values_BTH)
        return F.cross_entropy(logits_BTV.transpose(0, 1).flatten(0, 1), targets_N), state_LPBH

    def check_finite(self, step: int) -> None:
        """Raise Diverged when a weight is no finite number: the loss that tells of it is the next step's."""
        parameters = [*self.network.parameters(), *(self._average.parameters() if self._average is not None else ())]
        finite = torch.stack([parameter.detach().isfinite().all() for parameter in parameters])
        if not finite.all():
            raise Diverged("largest weight", step)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, their average, moments, carried state and random state, on the CPU."""
        tensors = {"state": self._state_LPBH, "random.cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._device)
        for name, parameter in self.network.named_parameters():
            tensors[f"weights.{name}"] = parameter.detach()
            for moment, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}.{name}"] = value
        if self._average is not None:
            tensors |= {f"average.{name}": parameter for name, parameter in self._average.named_parameters()}
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave. Raises KeyError or RuntimeError if it is another network's."""
        self._state_LPBH = tensors["state"].to(self._device)
        self._optimizer.state.clear()
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(tensors[f"weights.{name}"])
                if f"step.{name}" in tensors:
                    self._optimizer.state[parameter] = {
                        moment: tensors[f"{moment}.{name}"].to(self._device) for moment in MOMENTS
                    }
        self._load_average(tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if self._device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self._device)

    def _load_average(self, tensors: dict[str, Tensor]) -> None:
        if not any(name.startswith("average.") for name in tensors):  # from before the first step, or there is none
            self._average = None
            return
        self._average = _frozen_copy(self.network)
        for name, parameter in self._average.named_parameters():
            parameter.copy_(tensors[f"average.{name}"])


def decay_at(updates: int, decay: float) -> float:
    """What the average keeps of itself at the update that makes it `updates`.

    Less in the beginning, so that a short run's average is not mostly the start: min(decay, (1 + t) / (10 + t)), as
    TensorFlow's `tf.train.ExponentialMovingAverage` does it with `num_updates`.
    """
    return min(decay, (1 + updates) / (10 + updates))


def _frozen_copy(network: CharRNN) -> CharRNN:
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def _follow(average: CharRNN, network: CharRNN, decay: float) -> None:
    """average += (1 - decay) * (weights - average), in one call over all tensors."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def _compile(model: ModelConfig, precision: str, device: str) -> None:
    """Have the cell's gates compiled, which takes seconds once on a machine, before any time of training counts."""
    tiny = replace(model, hidden_size=2, num_layers=1, embedding_size=2)
    network = CharRNN(tiny, 2).to(device)
    network.fast = True
    for kind in (precision, "float32"):  # evaluation's is float32
        with multiplying_in(kind, torch.device(device).type):
            logits_BTV, _ = network(
                torch.zeros(2, 2, dtype=torch.int64, device=device), network.initial_state(2, device)
            )
        logits_BTV.sum().backward()


def _optimizer(network: CharRNN, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with decoupled decay of the matrices; biases are not decayed. Fused: one pass over the memory."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=BETAS, fused=True)
