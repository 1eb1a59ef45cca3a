"""What a checkpoint file says about itself: read and checked without torch, from its first bytes.

A checkpoint is one safetensors file (8 bytes of header length, a JSON header, the tensors' bytes; see
huggingface.co/docs/safetensors). Its metadata hold one JSON document under the key `charsmith`. Knows no torch, so that
the service may import it. Invariant: a `CheckpointInfo` that `read_info` returns agrees with the names, shapes, types
and offsets of all tensors in the file; anything else raises InvalidCheckpoint, and nothing in a file is executed. No
header makes more objects than a few thousand, whatever its length.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.config import ModelConfig, TrainingConfig
from models.vocabulary import Vocabulary

METADATA_KEY = "charsmith"
FORMAT = 1
BYTES_PER_NUMBER = 4
"""float32."""
MAX_HEADER_BYTES = 16 * 1024 * 1024
"""All of Unicode as a vocabulary takes 4.4 MB; anything longer is no checkpoint of ours."""
MAX_MARKS = 4_000
"""Of `[`, `{` and `,` in a header: a value has one before it. The deepest LSTM's has 534, three of them in its
vocabulary. 15 MiB of `[],` would become 450 MB of lists."""


class InvalidCheckpoint(ValueError):
    """The bytes are no checkpoint, or not one of this format; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint holds beside the weights. Losses are in nats per character, `step` in optimizer updates."""

    config: ModelConfig
    vocabulary: Vocabulary
    step: int
    train_loss: float | None = None
    val_loss: float | None = None
    training: dict[str, Any] = field(default_factory=dict)
    """`TrainingConfig.as_dict()` of the training that made it; empty if unknown."""


def tensor_order(header: bytes) -> list[str]:
    """Of a file that `read_info` has found valid: its tensors' names, in the order of their bytes."""
    entries = json.loads(header[8:])
    del entries["__metadata__"]
    return sorted(entries, key=lambda name: entries[name]["data_offsets"])


def read_info(source: bytes | memoryview | str | os.PathLike[str], *, file_bytes: int | None = None) -> CheckpointInfo:
    """What a checkpoint says, after checking it against its own tensors' names, shapes, types and offsets.

    `source` is a path, or the file's first bytes, header included. `file_bytes` is the size of the whole file, checked
    where it is known (for a path it always is). Raises InvalidCheckpoint.
    """
    if not isinstance(source, (bytes, memoryview)):
        path = Path(source)
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            source = start + file.read(header_bytes(start) - 8)
    end = header_bytes(bytes(source[:8]))
    if len(source) < end or (file_bytes is not None and file_bytes < end):
        raise InvalidCheckpoint("the file ends within its header")
    header = _parse(bytes(source[8:end]), "the header")
    info = info_from(header.pop("__metadata__", None))
    data_bytes = _check_tensors(header, info)
    if file_bytes is not None and file_bytes != end + data_bytes:
        raise InvalidCheckpoint(f"the file has {file_bytes} bytes, its header promises {end + data_bytes}")
    return info


def may_be_onnx(start: bytes) -> bool:
    """Whether a file with these first 8 bytes is rather an ONNX file (models.onnx_file): that begins with its format's
    version, field 1 of a protobuf message; ours with a length of some millions at most, as a 64-bit number."""
    return start[:1] == b"\x08" and any(start[3:8])


def header_bytes(start: bytes) -> int:
    """How many bytes from the file's beginning `read_info` needs, told by its first 8. Raises InvalidCheckpoint."""
    if len(start) < 8:
        raise InvalidCheckpoint("too short: a safetensors file begins with 8 bytes of header length")
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise InvalidCheckpoint(
            f"not a safetensors file, or its header is too large (at most {MAX_HEADER_BYTES} bytes)"
        )
    return 8 + length


def metadata_of(info: CheckpointInfo) -> dict[str, str]:
    """The safetensors metadata that `read_info` reads back. One key: more would be written in no fixed order."""
    document = {
        "format": FORMAT,
        "config": info.config.as_dict(),
        "vocabulary": info.vocabulary.characters,
        "step": info.step,
        "train_loss": info.train_loss,
        "val_loss": info.val_loss,
        "training": info.training,
    }
    return {METADATA_KEY: json.dumps(document, ensure_ascii=False, allow_nan=False)}


def checkpoint_header(info: CheckpointInfo) -> bytes:
    """The beginning of the file, to which the tensors' bytes are added in the order of their names, as safetensors'
    own `save` would write it."""
    entries: dict[str, object] = {"__metadata__": metadata_of(info)}
    end = 0
    for name, shape in sorted(info.config.parameter_shapes(len(info.vocabulary)).items()):
        begin, end = end, end + BYTES_PER_NUMBER * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parse(text: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object of not too many parts; duplicate keys and NaN are refused: readers disagree on what they mean."""
    if _marks(text) > MAX_MARKS:
        raise InvalidCheckpoint(f"{what} has more than {MAX_MARKS} parts")
    try:
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"{what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidCheckpoint(f"{what} is not a JSON object")
    return value


def _marks(text: bytes | str) -> int:
    if isinstance(text, str):
        return sum(text.count(mark) for mark in "[{,")
    return sum(text.count(mark) for mark in (b"[", b"{", b","))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key occurs twice")
    return members


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def info_from(metadata: object) -> CheckpointInfo:
    """What `metadata_of` was made of. Raises InvalidCheckpoint."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get(METADATA_KEY), str):
        raise InvalidCheckpoint("not a Charsmith checkpoint: its metadata have no entry `charsmith`")
    document = _parse(metadata[METADATA_KEY], "the metadata")
    if document.get("format") != FORMAT:
        raise InvalidCheckpoint(f"format {document.get('format')!r} is not known, only {FORMAT}")
    try:
        config = ModelConfig.from_dict(_member(document, "config", dict))
        training = _member(document, "training", dict)
        TrainingConfig.from_dict(training)
        vocabulary = Vocabulary(_member(document, "vocabulary", str))
    except ValueError as error:
        raise InvalidCheckpoint(str(error)) from None
    step = _member(document, "step", int)
    if isinstance(step, bool) or not 0 <= step < 2**53:
        raise InvalidCheckpoint(f"step {step!r} is out of range")
    return CheckpointInfo(
        config, vocabulary, step, _loss(document, "train_loss"), _loss(document, "val_loss"), training
    )


def _member(document: Mapping[str, Any], name: str, kind: type) -> Any:
    value = document.get(name)
    if not isinstance(value, kind):
        raise InvalidCheckpoint(f"metadata: {name} is missing or of the wrong type")
    return value


def _loss(document: Mapping[str, Any], name: str) -> float | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:  # also true of NaN
        raise InvalidCheckpoint(f"metadata: {name} is not a finite number")
    return float(value)


def _check_tensors(header: Mapping[str, Any], info: CheckpointInfo) -> int:
    """Bytes of all tensors, after checking that they are those of the configuration, and lie one behind the other."""
    expected = info.config.parameter_shapes(len(info.vocabulary))
    wrong = sorted(expected.keys() ^ header.keys())
    if wrong:
        raise InvalidCheckpoint(f"tensor {wrong[0][:100]!r} is {'missing' if wrong[0] in expected else 'unexpected'}")
    spans = sorted(_span(name, header[name], shape) for name, shape in expected.items())
    end = 0
    for begin, after in spans:
        if begin != end:
            raise InvalidCheckpoint("the tensors overlap or leave gaps")
        end = after
    return end


def _span(name: str, entry: object, shape: tuple[int, ...]) -> tuple[int, int]:
    if not isinstance(entry, dict) or entry.get("dtype") != "F32":
        raise InvalidCheckpoint(f"tensor {name} is not float32")
    if entry.get("shape") != list(shape):
        raise InvalidCheckpoint(f"tensor {name} has shape {str(entry.get('shape'))[:100]}, expected {list(shape)}")
    offsets = entry.get("data_offsets")
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
        raise InvalidCheckpoint(f"tensor {name} has no valid offsets")
    begin, end = offsets
    if begin < 0 or end - begin != BYTES_PER_NUMBER * math.prod(shape):
        raise InvalidCheckpoint(f"tensor {name} has offsets {begin} to {end}, which do not fit its shape")
    return begin, end
