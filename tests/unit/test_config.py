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
    ],
)
def test_an_invalid_training_setting_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidConfig) as raised:
        TrainingConfig(**{field: value})
    assert raised.value.field == field


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
