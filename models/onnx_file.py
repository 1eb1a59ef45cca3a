"""A checkpoint as an ONNX file, and back, in pieces: of the weights no more is held than a piece.

Knows no store. The file is one protobuf message (protobuf.dev/programming-guides/encoding) of a few kilobytes, in which
the weights' bytes are embedded as they are in the safetensors file: little-endian float32, row by row. The onnx package
writes and reads the message without them; where they belong, this module does. (The package itself would hold the whole
file two or three times.) Invariants: what `checkpoint_of_onnx` gives has the tensors that its header says, and another
graph than `onnx_model` makes is refused, as it would be another network; a checkpoint that went there and back has the
same bytes, if safetensors wrote it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto

from models.checkpoint_header import (
    BYTES_PER_NUMBER,
    MAX_HEADER_BYTES,
    CheckpointInfo,
    InvalidCheckpoint,
    checkpoint_header,
    header_bytes,
    info_from,
    read_info,
    tensor_order,
)
from models.onnx_graph import onnx_model

PIECE_BYTES = 1 << 20
MAX_FILE_BYTES = 2**31 - 1
"""Of a protobuf message, and so of an ONNX file that holds its weights itself."""
MAX_GRAPH_BYTES = 1 << 17
"""Of all but metadata and weights; the largest graph of ours has 25 KB, described by other programs some more. An empty
message of two bytes becomes 370 in memory."""
MAX_FIELDS = 4_000
"""That are looked at one by one: of the message, of the graph, of its tensors. The deepest LSTM has 800."""

_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_METADATA = ModelProto.DESCRIPTOR.fields_by_name["metadata_props"].number
_TENSOR = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_NUMBERS = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number

_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5
"""Protobuf's wire types; its two others are of groups, which ONNX has none of."""
_MAX_VARINT_BYTES = 10


class TooLargeForOnnx(ValueError):
    """The file would have more bytes than a protobuf message can."""


def onnx_of_checkpoint(pieces: Iterable[bytes]) -> tuple[int, Iterator[bytes]]:
    """How many bytes the ONNX file of a checkpoint file has, and the bytes in pieces.

    The checkpoint's are read as the other's are asked for. Raises InvalidCheckpoint, TooLargeForOnnx.
    """
    source = _Source(pieces)
    start = source.take(8)
    header = start + source.take(header_bytes(start) - 8)
    info = read_info(header)
    model = onnx_model(info)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    embedded = [_Embedded(tensors[name]) for name in tensor_order(header)]
    del model.graph.initializer[:]
    graph = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    graph_bytes = len(graph) + sum(map(len, embedded))
    beginning = model.SerializeToString(deterministic=True) + _prefix(_GRAPH, graph_bytes) + graph
    size = len(beginning) - len(graph) + graph_bytes
    if size > MAX_FILE_BYTES:
        raise TooLargeForOnnx(f"an ONNX file has at most {MAX_FILE_BYTES} bytes, this one would have {size}")
    return size, _written(beginning, embedded, source)


class _Embedded:
    """A tensor within a graph's message: `beginning`, then so many bytes of numbers."""

    def __init__(self, tensor: TensorProto) -> None:
        self.number_bytes: int = BYTES_PER_NUMBER * math.prod(tensor.dims)
        header = tensor.SerializeToString(deterministic=True) + _prefix(_NUMBERS, self.number_bytes)
        self.beginning = _prefix(_TENSOR, len(header) + self.number_bytes) + header

    def __len__(self) -> int:
        return len(self.beginning) + self.number_bytes


def _written(beginning: bytes, embedded: Iterable[_Embedded], source: "_Source") -> Iterator[bytes]:
    yield beginning
    for tensor in embedded:
        yield tensor.beginning
        yield from source.pieces(tensor.number_bytes)


class _Source:
    """Pieces of a checkpoint file, cut anew."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = memoryview(b"")

    def pieces(self, length: int) -> Iterator[bytes]:
        """The next so many bytes. Raises InvalidCheckpoint if there are fewer."""
        while length:
            if not self._held:
                piece = next(self._pieces, b"")
                if not piece:
                    raise InvalidCheckpoint("the file ends too early")
                self._held = memoryview(piece)
            taken = self._held[:length]
            self._held = self._held[len(taken) :]
            length -= len(taken)
            yield bytes(taken)

    def take(self, length: int) -> bytes:
        return b"".join(self.pieces(length))


def checkpoint_of_onnx(file: BinaryIO) -> tuple[CheckpointInfo, Iterator[bytes]]:
    """What an ONNX file of ours says about itself, and the checkpoint file that it is made of, in pieces.

    The file is read as the pieces are asked for. It may have been read and written by other programs, as long as they
    left the graph as it was. Raises InvalidCheckpoint.
    """
    model, weights = _Walk(file).model()
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    info = info_from(metadata)
    tensors = [(tensor.name, math.prod(tensor.dims)) for tensor in model.graph.initializer]
    if _essence(model) != _essence(onnx_model(info)):
        raise InvalidCheckpoint(
            "the graph is not the one that is written here for such a network; only files that "
            "`GET /models/{key}/download?format=onnx` gave are taken, with the graph as it was"
        )
    places = {}
    for (name, numbers), place in zip(tensors, weights, strict=True):
        if place is None or place.bytes != BYTES_PER_NUMBER * numbers:
            raise InvalidCheckpoint(f"tensor {name!r} is not stored as raw bytes of its shape")
        places[name] = place
    return info, chain((checkpoint_header(info),), _read_all(file, places))


def _essence(model: ModelProto) -> bytes:
    """All that says what is computed, with the tensors in one order. The model is left with nothing else."""
    for described in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        model.ClearField(described)
    model.ClearField("metadata_props")
    for described in ("name", "doc_string", "value_info", "metadata_props"):
        model.graph.ClearField(described)
    model.graph.initializer.sort(key=lambda tensor: tensor.SerializeToString(deterministic=True))
    essence: bytes = model.SerializeToString(deterministic=True)
    return essence


@dataclass(frozen=True, slots=True)
class _Place:
    """Bytes of a file."""

    begin: int
    bytes: int


def _read_all(file: BinaryIO, places: dict[str, _Place]) -> Iterator[bytes]:
    for _, place in sorted(places.items()):
        file.seek(place.begin)
        for begin in range(0, place.bytes, PIECE_BYTES):
            yield file.read(min(PIECE_BYTES, place.bytes - begin))


class _Walk:
    """Reads a message but for the weights' numbers, whose places it tells."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._fields = 0
        self._graph_bytes = 0
        self._metadata_bytes = 0

    def model(self) -> tuple[ModelProto, list[_Place | None]]:
        """The message, and for each tensor of its graph where its numbers are, None if it has none of its own."""
        kept: list[bytes] = []
        graph: bytes | None = None
        weights: list[_Place | None] = []
        for field in self._fields_of(_Place(0, self._file.seek(0, 2))):
            if field.number == _GRAPH and graph is None:
                graph, weights = self._graph(field.content)
            elif field.number == _GRAPH:
                raise InvalidCheckpoint("there are two graphs")
            else:
                kept.append(self._kept(field.whole, metadata=field.number == _METADATA))
        if graph is None:
            raise InvalidCheckpoint("not an ONNX file: there is no graph")
        message = b"".join([*kept, _prefix(_GRAPH, len(graph)), graph])
        try:
            return ModelProto.FromString(message), weights
        except DecodeError as error:
            raise InvalidCheckpoint(f"not an ONNX file: {error}") from None

    def _graph(self, content: _Place) -> tuple[bytes, list[_Place | None]]:
        kept: list[bytes] = []
        weights: list[_Place | None] = []
        for field in self._fields_of(content):
            if field.number == _TENSOR:
                tensor, numbers = self._tensor(field.content)
                kept.append(_prefix(_TENSOR, len(tensor)) + tensor)
                weights.append(numbers)
            else:
                kept.append(self._kept(field.whole))
        return b"".join(kept), weights

    def _tensor(self, content: _Place) -> tuple[bytes, _Place | None]:
        kept, numbers = [], None
        for field in self._fields_of(content):
            if field.number == _NUMBERS and numbers is None:
                numbers = field.content
            elif field.number == _NUMBERS:
                raise InvalidCheckpoint("a tensor has its numbers twice")
            else:
                kept.append(self._kept(field.whole))
        return b"".join(kept), numbers

    def _fields_of(self, message: _Place) -> Iterator["_Field"]:
        """The fields that lie one behind the other in these bytes, to their very end."""
        begin, end = message.begin, message.begin + message.bytes
        while begin < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise InvalidCheckpoint(f"not an ONNX file of ours: it has more than {MAX_FIELDS} parts")
            field = self._field(begin, end)
            yield field
            begin = field.whole.begin + field.whole.bytes

    def _field(self, begin: int, end: int) -> "_Field":
        key, at = self._varint(begin, end)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            at = content_end = self._varint(at, end)[1]
        elif wire_type == _DELIMITED:
            length, at = self._varint(at, end)
            content_end = at + length
        elif wire_type in (_FOUR_BYTES, _EIGHT_BYTES):
            content_end = at + (4 if wire_type == _FOUR_BYTES else 8)
        else:
            raise InvalidCheckpoint("not an ONNX file: it is no protobuf message")
        if content_end > end:
            raise InvalidCheckpoint("not an ONNX file, or it is cut off")
        if number in (_GRAPH, _TENSOR, _NUMBERS) and wire_type != _DELIMITED:
            number = 0  # a number where a message is due: for the package to refuse
        return _Field(number, _Place(begin, content_end - begin), _Place(at, content_end - at))

    def _varint(self, begin: int, end: int) -> tuple[int, int]:
        """The number that begins there, and where it has ended: 7 bits a byte, lowest first."""
        self._file.seek(begin)
        value = 0
        for index, byte in enumerate(self._file.read(min(_MAX_VARINT_BYTES, end - begin))):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value, begin + index + 1
        raise InvalidCheckpoint("not an ONNX file, or it is cut off")

    def _kept(self, place: _Place, *, metadata: bool = False) -> bytes:
        if metadata:
            self._metadata_bytes += place.bytes
        else:
            self._graph_bytes += place.bytes
        if self._metadata_bytes > MAX_HEADER_BYTES or self._graph_bytes > MAX_GRAPH_BYTES:
            raise InvalidCheckpoint(
                f"not an ONNX file of ours: its metadata have more than {MAX_HEADER_BYTES} bytes, or all the rest but "
                f"the weights (as raw data, not as numbers of protobuf's) more than {MAX_GRAPH_BYTES}"
            )
        self._file.seek(place.begin)
        return self._file.read(place.bytes)


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    whole: _Place
    content: _Place


def _prefix(number: int, length: int) -> bytes:
    """What stands before `length` bytes of a field."""
    return _key(number, _DELIMITED) + _as_varint(length)


def _key(number: int, wire_type: int) -> bytes:
    return _as_varint(number << 3 | wire_type)


def _as_varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
