"""A configuration that exists is valid; a refusal names the field."""

import json
from typing import Any

import pytest

from models.config import InvalidConfig, ModelConfig, TrainingConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cell", "elman"),
        ("hidden_size", 0),
        ("hidden_size", True),
        ("hidden_size", 1.5),
        ("num_layers", 17),
        ("dropout", 1),
        ("dropout", float("nan")),
        ("normalization", None),
    ],
)
def test_an_invalid_model_setting_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidConfig) as raised:
        ModelConfig(**{field: value})
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("steps", 2.5),
        ("minutes", float("inf")),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("average_decay", 1),
        ("state_reset", 1.5),
        ("validation_fraction", 0.6),
        ("patience", 0),
        ("seed", -1),
        ("precision", "float16"),
        ("evaluate_every", 0),
        ("softmax_samples", -1),
    ],
)
def test_an_invalid_training_setting_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidConfig) as raised:
        TrainingConfig(**{field: value})
    assert raised.value.field == field


@pytest.mark.parametrize(
    "field",
    [
        "epochs",
        "minutes",
        "learning_rate",
        "gradient_clip",
        "weight_decay",
        "average_decay",
        "state_reset",
        "validation_fraction",
    ],
)
@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e-10])
def test_no_setting_is_so_small_that_another_process_may_take_it_for_0(field: str, value: float) -> None:
    with pytest.raises(InvalidConfig, match=r"(from|at least) 1e-09") as raised:
        TrainingConfig(**{field: value})
    assert raised.value.field == field
    assert TrainingConfig(**{field: 1e-9})


def test_patience_needs_a_validation_loss_to_watch() -> None:
    assert TrainingConfig(patience=3)
    assert TrainingConfig(validation_fraction=0)
    with pytest.raises(InvalidConfig, match="validation_fraction above 0") as raised:
        TrainingConfig(patience=3, validation_fraction=0)
    assert raised.value.field == "patience"


def test_one_budget_at_most_and_one_minute_without_any() -> None:
    assert TrainingConfig().minutes == 1
    assert TrainingConfig(steps=3).minutes is None
    with pytest.raises(InvalidConfig, match="one budget"):
        TrainingConfig(steps=3, epochs=1)


def test_configurations_survive_json() -> None:
    model, training = ModelConfig(cell="lstm"), TrainingConfig(epochs=0.1, patience=2)
    assert ModelConfig.from_dict(json.loads(json.dumps(model.as_dict()))) == model
    assert TrainingConfig.from_dict(json.loads(json.dumps(training.as_dict()))) == training


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(InvalidConfig, match="hiden_size: unknown"):
        ModelConfig.from_dict({"hiden_size": 3})
