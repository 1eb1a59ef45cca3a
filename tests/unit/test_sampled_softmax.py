"""The sampled softmax: exact once all are drawn, unbiased before, and what was not drawn rests."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import ModelConfig, TrainingConfig
from worker.batches import Lanes
from worker.learner import BETAS, Learner
from worker.sampled_softmax import SampledSoftmax

VOCABULARY = 40
TRAINING = TrainingConfig(steps=1, batch_size=2, sequence_length=5, precision="float32", weight_decay=0.3)
MODEL = ModelConfig(hidden_size=12, embedding_size=6, dropout=0.0)


def learner_of(samples: int, **settings: float) -> Learner:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 300).astype(np.uint16)
    training = replace(TRAINING, softmax_samples=samples, **settings)  # type: ignore[arg-type]
    return Learner(MODEL, training, VOCABULARY, Lanes(ids, 2, 5), "cpu")


def tensors_by_name(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.tensors().items() if not name.startswith("random")}


@pytest.mark.parametrize("clip", [1e3, 1e-2])
def test_with_all_drawn_training_is_that_of_the_whole_softmax(clip: float) -> None:
    settings = {"state_reset": 0.0, "gradient_clip": clip}
    whole, sampled = learner_of(0, **settings), learner_of(VOCABULARY, **settings)
    for step in range(5):
        expected, update = whole.update(step, 0.01), sampled.update(step, 0.01)
        assert update == pytest.approx(expected, rel=1e-4)
    tensors = tensors_by_name(sampled)
    for name, expected_tensor in tensors_by_name(whole).items():
        assert torch.allclose(tensors[name], expected_tensor, rtol=1e-3, atol=1e-6), name


def test_the_sum_over_the_vocabulary_is_right_on_average() -> None:
    """exp(loss) of one character is the sum over its own term; the mean of 4,000 draws, at five standard errors:
    wrong once in a million times, and the seed is fixed."""
    torch.manual_seed(0)
    output, values_1H, target_1 = nn.Linear(8, VOCABULARY), 3 * torch.randn(1, 8), torch.tensor([3])
    sampled = SampledSoftmax(output, 5, 0.0, BETAS)
    draws = torch.stack([sampled.loss(values_1H, target_1).detach().exp() for _ in range(4_000)])
    exact = F.cross_entropy(output(values_1H), target_1).exp()
    assert draws.std() > 0.01 * exact, "it was drawn"
    assert abs(draws.mean() - exact) < 5 * draws.std() / 4_000**0.5


def test_rows_that_were_not_drawn_rest_and_the_others_are_learnt() -> None:
    learner = learner_of(3)
    learner.update(0, 0.01)
    assert learner._sampled is not None
    for step in range(1, 4):
        before = tensors_by_name(learner)
        learner.update(step, 0.01)
        after = tensors_by_name(learner)
        chosen = set(learner._sampled._ids_C.tolist())
        targets = set(learner.lanes.read(step).targets_BT.flatten().tolist())
        assert targets < chosen
        assert len(chosen) == len(targets) + 3
        for name in ("weights", "exp_avg", "exp_avg_sq"):
            for part in ("output.weight", "output.bias"):
                old, new = before[f"{name}.{part}"], after[f"{name}.{part}"]
                changed = {row for row in range(VOCABULARY) if not old[row].equal(new[row])}
                assert changed == chosen, (name, part)


def test_the_draw_is_new_at_each_step_and_the_same_for_a_seed() -> None:
    def drawn(seed: int) -> list[list[int]]:
        learner, ids = learner_of(3, seed=seed), []
        for step in range(3):
            learner.update(step, 0.01)
            ids.append(learner._sampled._ids_C[-3:].tolist())  # type: ignore[union-attr]
        return ids

    first = drawn(0)
    assert first == drawn(0) != drawn(1)
    assert len({tuple(ids) for ids in first}) == 3
