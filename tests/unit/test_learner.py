"""One step: the gradient is clipped, matrices decay, biases do not, and a network that broke is noticed."""

import math

import pytest
import torch

from models.config import ModelConfig, TrainingConfig
from worker.batches import Corpus, Lanes
from worker.learner import BETAS, Diverged, Learner, decay_at

CORPUS = Corpus.of("the quick brown fox jumps over the lazy dog.\n" * 20)
RATE = 0.01


def learner_of(**settings: float) -> Learner:
    training = TrainingConfig(steps=1, batch_size=4, sequence_length=16, precision="float32", **settings)  # type: ignore[arg-type]
    model = ModelConfig(cell="lstm", hidden_size=12, num_layers=2, embedding_size=6)  # whose biases are not all zero
    return Learner(model, training, len(CORPUS.vocabulary), Lanes(CORPUS.ids, 4, 16), "cpu")


def norm_learned_from(learner: Learner) -> float:
    """L2 norm of the gradient that the optimizer saw at its first step: its first moments are a tenth of it."""
    moments = [tensor for name, tensor in learner.tensors().items() if name.startswith("exp_avg.")]
    assert moments
    return math.sqrt(sum(float(moment.square().sum()) for moment in moments)) / (1 - BETAS[0])


def test_a_gradient_above_the_limit_is_scaled_down_to_it_and_told_as_it_was() -> None:
    learner = learner_of(gradient_clip=1e-3)
    told = learner.update(0, RATE).gradient_norm
    assert told > 0.1
    assert norm_learned_from(learner) == pytest.approx(1e-3, rel=1e-3)


def test_a_gradient_below_the_limit_is_left_alone() -> None:
    learner = learner_of(gradient_clip=1e3)
    told = learner.update(0, RATE).gradient_norm
    assert norm_learned_from(learner) == pytest.approx(told, rel=1e-4)


def test_matrices_decay_by_rate_times_decay_and_biases_do_not() -> None:
    plain, decayed = learner_of(weight_decay=0.0), learner_of(weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in decayed.network.named_parameters()}
    for learner in (plain, decayed):
        torch.manual_seed(1)  # the same dropout
        learner.update(0, RATE)
    assert before["layers.0.bias_ih_l0"].any()
    for name, parameter in decayed.network.named_parameters():
        shrunk = plain.network.get_parameter(name) - parameter
        expected = torch.zeros_like(shrunk) if "bias" in name else RATE * 0.5 * before[name]
        assert torch.allclose(shrunk, expected, atol=1e-7), name


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_lanes_begin_anew_by_chance_and_the_others_go_on(share: float) -> None:
    learner = learner_of(state_reset=share)
    learner.update(0, RATE)
    begun = 0
    for step in range(1, 9):
        before = learner.tensors()["state"].clone()
        learner._begin_anew(wraps=False)
        after = learner.tensors()["state"]
        anew = [not after[:, :, lane].any() for lane in range(4)]
        assert all(anew[lane] or after[:, :, lane].equal(before[:, :, lane]) for lane in range(4))
        begun += sum(anew)
        learner.update(step, RATE)
    assert {0.0: begun == 0, 0.5: 2 <= begun <= 30, 1.0: begun == 32}[share]  # by chance wrong once in 10^7


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in learner.network.named_parameters()}


def test_the_average_follows_the_weights_by_one_minus_the_decay() -> None:
    learner = learner_of(average_decay=0.4)
    expected = weights_of(learner)
    for step in range(8):
        learner.update(step, RATE)
        decay = min(0.4, (2 + step) / (11 + step))  # 0.4 from the fifth update on
        for name, weight in weights_of(learner).items():
            expected[name] += (1 - decay) * (weight - expected[name])
    for name, average in learner.result.named_parameters():
        assert average.dtype == torch.float32
        assert torch.allclose(average, expected[name], atol=1e-7), name
        assert torch.equal(average, learner.tensors()[f"average.{name}"])


def test_a_short_trainings_average_is_not_mostly_its_start() -> None:
    of_start = 1.0
    for updates in range(1, 11):
        of_start *= decay_at(updates, 0.9999)
    assert of_start < 1e-4
    assert decay_at(10**6, 0.9999) == 0.9999


def test_averaging_changes_nothing_that_is_learned() -> None:
    plain, averaged = learner_of(), learner_of(average_decay=0.9)
    for learner in (plain, averaged):
        torch.manual_seed(1)  # the same dropout
        for step in range(5):
            learner.update(step, RATE)
    assert plain.result is plain.network
    averages = dict(averaged.result.named_parameters())
    for name, weight in weights_of(averaged).items():
        assert torch.equal(weight, plain.network.get_parameter(name)), name
        assert not torch.equal(weight, averages[name]), name
    assert "average.output.bias" not in plain.tensors()


def test_an_average_that_is_no_number_is_noticed() -> None:
    learner = learner_of(average_decay=0.9)
    learner.update(0, RATE)
    learner.check_finite(1)
    learner.result.output.bias.data[0] = math.nan
    with pytest.raises(Diverged, match="weight after 1 step"):
        learner.check_finite(1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_noticed_before_the_next_loss_tells(value: float) -> None:
    learner = learner_of()
    learner.check_finite(3)
    with torch.no_grad():
        learner.network.output.bias[-1] = value
    with pytest.raises(Diverged, match="weight after 4 steps"):
        learner.check_finite(4)
