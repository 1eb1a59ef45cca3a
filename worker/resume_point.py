"""A resume point: everything needed to go on training to the bit, as one safetensors file. Nothing is pickled.

Knows no training, only names, tensors and JSON values. Invariant: `decode(encode(x))` is `x`, floats to the last bit.
"""

import json
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

METADATA_KEY = "charsmith_resume_point"
FORMAT = 1


class InvalidResumePoint(ValueError):
    """The bytes are no resume point, or that of another training; the message says what differs."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Tensors by name, on the CPU, and JSON values by name."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Raises InvalidResumePoint, naming what differs, if this is another training's.

        A setting that it does not name came into being after it, and so did what it says nothing of: that is None.
        """
        for name, value in identity.items():
            told = self.values["identity"].get(name)
            if isinstance(told, dict):
                value = {setting: value.get(setting) for setting in told}
            if told != value:
                raise InvalidResumePoint(f"the resume point is of another {name}")

    def encode(self) -> bytes:
        """The file. Equal resume points give equal bytes."""
        document = json.dumps({"format": FORMAT, **self.values}, allow_nan=False)
        return save(self.tensors, {METADATA_KEY: document})

    @classmethod
    def decode(cls, data: bytes) -> "ResumePoint":
        """What `encode` wrote. Raises InvalidResumePoint."""
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            values = json.loads(header["__metadata__"][METADATA_KEY])
        except (SafetensorError, ValueError, KeyError) as error:
            raise InvalidResumePoint(f"not a resume point: {error}") from None
        if values.pop("format", None) != FORMAT:
            raise InvalidResumePoint("a resume point of another version")
        return cls(tensors, values)
