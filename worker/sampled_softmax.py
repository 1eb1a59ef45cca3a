"""The output layer of a large vocabulary, trained on some of its characters at each step.

A step's loss over V characters costs products of N V H; with 20,000 characters that is ten times the recurrent layer.
So the sum in the softmax is estimated: exactly over the characters that are a target in this step (nearly all of the
frequent ones), and over so many of the others, drawn evenly without replacement, each of which stands for its share
of them (Jean et al. 2015, "On Using Very Large Target Vocabulary for Neural Machine Translation"; Bengio and Senécal
2008, "Adaptive Importance Sampling"). The estimate of the sum is unbiased, and exact once all others are drawn; the
loss's, a logarithm of it, is a little too low. Evaluation, samples and generation use the whole vocabulary.

Only the chosen rows are learnt and decayed: they are a small parameter of their own for one step, and AdamW's moments
of the others rest, as TensorFlow's LazyAdam does it. Knows no recurrent network.

Shape suffixes: N characters of a step, V vocabulary, C chosen characters, H hidden.
"""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adamw import adamw

from models.recurrence import linear


class SampledSoftmax:
    """Loss and learning of one output layer. Draws from torch's global generator on the CPU."""

    def __init__(self, output: nn.Linear, samples: int, weight_decay: float, betas: tuple[float, float]) -> None:
        self._output = output
        self._samples = samples
        self._decays = {"weight": weight_decay, "bias": 0.0}
        self._betas = betas
        self._ids_C = torch.empty(0, dtype=torch.int64)
        self.chosen: dict[str, nn.Parameter] = {}
        """The rows of weight and bias that this step learns, with their gradients after backward."""

    def loss(self, values_NH: Tensor, targets_N: Tensor) -> Tensor:
        """Mean loss in nats per character. Draws this step's characters; under autocast products are in its type."""
        present_V = torch.zeros(self._output.out_features, dtype=torch.bool, device=targets_N.device)
        present_V[targets_N] = True
        present, others = present_V.nonzero().flatten(), (~present_V).nonzero().flatten()
        drawn = others[torch.randperm(len(others))[: self._samples].to(others.device)]
        self._ids_C = torch.cat((present, drawn))
        self.chosen = {name: nn.Parameter(rows.detach()[self._ids_C]) for name, rows in self._rows().items()}
        place_V = torch.empty_like(present_V, dtype=torch.int64)
        place_V[present] = torch.arange(len(present), device=present.device)
        logits_NC = linear(values_NH, self.chosen["weight"], self.chosen["bias"]).float()
        if len(drawn) < len(others):
            logits_NC[:, len(present) :] += math.log(len(others) / len(drawn))
        return F.cross_entropy(logits_NC, place_V[targets_N])

    @torch.no_grad()
    def step(self, learning_rate: float, states: defaultdict[Tensor, Any]) -> None:
        """AdamW on this step's rows. `states` is the optimizer's, in which moments and step are kept for all rows."""
        beta1, beta2 = self._betas
        for name, rows in self._rows().items():
            state = states[rows]
            if not state:
                zeros = {moment: torch.zeros_like(rows) for moment in ("exp_avg", "exp_avg_sq")}
                state |= {"step": torch.zeros((), device=rows.device), **zeros}
            chosen, moments = self.chosen[name], [state[moment][self._ids_C] for moment in ("exp_avg", "exp_avg_sq")]
            assert chosen.grad is not None, "backward comes first"
            adamw(
                [chosen],
                [chosen.grad],
                [moments[0]],
                [moments[1]],
                [],
                [state["step"]],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=learning_rate,
                weight_decay=self._decays[name],
                eps=1e-8,
                maximize=False,
            )
            for whole, part in ((rows, chosen), (state["exp_avg"], moments[0]), (state["exp_avg_sq"], moments[1])):
                whole[self._ids_C] = part

    def _rows(self) -> dict[str, Tensor]:
        return {"weight": self._output.weight, "bias": self._output.bias}
