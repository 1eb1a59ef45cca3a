"""Networks by size, for those who do not want to choose numbers.

Knows no HTTP and no store. Invariant: what `resolve` returns is complete and valid, so that a job says exactly how it
is trained; a setting that was given is never changed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from models.config import InvalidConfig, ModelConfig, TrainingConfig

Record = TypeVar("Record", ModelConfig, TrainingConfig)

Preset = Literal["auto", "tiny", "small", "medium", "large"]

SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": {"hidden_size": 128, "embedding_size": 32},
        "small": {"hidden_size": 256},
        "medium": {"hidden_size": 512},
        "large": {"hidden_size": 1024, "num_layers": 2, "embedding_size": 128},
    }
)

SMALL_CORPUS_CHARACTERS = 100_000
"""Below, `auto` is `small`: a medium network of 0.9 million numbers would learn such a text by heart."""


def resolve(
    preset: Preset, model: Mapping[str, Any], training: Mapping[str, Any], corpus_characters: int
) -> tuple[ModelConfig, TrainingConfig]:
    """Every setting: those given, then the preset's, then the defaults. InvalidConfig names the field in full."""
    if preset == "auto":
        preset = "small" if corpus_characters < SMALL_CORPUS_CHARACTERS else "medium"
    config = _named("model", ModelConfig, {**SIZES[preset], **model})
    return config, _named("training", TrainingConfig, training)


def _named(section: str, record: type[Record], values: Mapping[str, Any]) -> Record:
    try:
        return record.from_dict(values)
    except InvalidConfig as error:
        raise InvalidConfig(f"{section}.{error.field}", error.message) from None
