"""ONNX files: onnxruntime writes what we write with them, they come back as they were, and no other is taken."""

import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto

from models.checkpoint import decode_checkpoint, encode_checkpoint
from models.checkpoint_header import (
    CheckpointInfo,
    InvalidCheckpoint,
    checkpoint_header,
    header_bytes,
    may_be_onnx,
    metadata_of,
    read_info,
)
from models.config import CELLS, Cell, ModelConfig
from models.onnx_file import MAX_FIELDS, MAX_GRAPH_BYTES, TooLargeForOnnx, checkpoint_of_onnx, onnx_of_checkpoint
from models.rnn import CharRNN
from models.rows import RowRequest
from models.sampling import SamplingConfig
from models.vocabulary import Vocabulary
from tests.onnx_writing import session_of, written_by_onnxruntime
from tests.unit.test_engine import engine_of, tiny_model

CHARACTERS = 300
PROMPT = "to be or not to be"
VOCABULARY = Vocabulary(sorted('\x00\x1f\n "\\abcdé語\U0001f600'))


def checkpoint(cell: Cell = "lstm", layers: int = 2, hidden_size: int = 6) -> bytes:
    """A file with all that metadata can hold."""
    torch.manual_seed(1)
    config = ModelConfig(cell=cell, hidden_size=hidden_size, num_layers=layers, embedding_size=3)
    network = CharRNN(config, len(VOCABULARY))
    return encode_checkpoint(network, CheckpointInfo(config, VOCABULARY, 7, 1.5, None, {"steps": 7, "minutes": None}))


def as_onnx(file: bytes, piece: int = 1000) -> bytes:
    size, pieces = onnx_of_checkpoint(file[begin : begin + piece] for begin in range(0, len(file), piece))
    written = b"".join(pieces)
    assert len(written) == size
    return written


def back(file: bytes) -> bytes:
    _, pieces = checkpoint_of_onnx(io.BytesIO(file))
    return b"".join(pieces)


@pytest.mark.parametrize("sampling", [SamplingConfig(temperature=0), SamplingConfig(temperature=0.8, top_p=0.95)])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_onnxruntime_writes_the_characters_that_we_write(cell: Cell, layers: int, sampling: SamplingConfig) -> None:
    network, info = tiny_model(cell, num_layers=layers)
    engine = engine_of(network, info)
    engine.admit([0], RowRequest(PROMPT, CHARACTERS, seed=3, sampling=sampling))
    ours = ""
    while engine.busy:
        ours += "".join(output.text for output in engine.step())
    file = as_onnx(encode_checkpoint(network, info))
    theirs = written_by_onnxruntime(file, PROMPT, CHARACTERS, sampling, seed=3)

    assert theirs == ours
    assert len(set(ours)) > 3 or sampling.temperature == 0 or cell == "rnn_relu", "a text, not one character"


@pytest.mark.parametrize("cell", CELLS)
def test_rows_are_computed_side_by_side(cell: Cell) -> None:
    file = checkpoint(cell)
    network, _ = decode_checkpoint(file)
    session = session_of(as_onnx(file))
    state_LPBH = network.initial_state(5)
    theirs = state_LPBH.numpy()
    for _ in range(4):
        ids_B = torch.randint(len(VOCABULARY), (5,))
        with torch.inference_mode():
            logits_BTV, state_LPBH = network(ids_B[:, None], state_LPBH)
        logits, theirs = session.run(None, {"id": ids_B.numpy(), "state": theirs})
        assert np.abs(logits - logits_BTV[:, 0].numpy()).max() < 1e-5
        assert np.abs(theirs - state_LPBH.numpy()).max() < 1e-5


@pytest.mark.parametrize("layers", [1, 16])
@pytest.mark.parametrize("cell", CELLS)
def test_the_file_passes_the_checks_of_the_onnx_package_and_has_the_weights_as_they_were(
    cell: Cell, layers: int
) -> None:
    file = checkpoint(cell, layers)
    model = onnx.load_from_string(as_onnx(file))
    onnx.checker.check_model(model, full_check=True)

    weights = decode_checkpoint(file)[0].state_dict()
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert found.keys() == weights.keys()
    assert all((found[name] == weights[name].numpy()).all() for name in weights)
    read = {name for node in model.graph.node for name in node.input}
    given = {name for node in model.graph.node for name in node.output}
    assert given - read == {"logits", "next_state"}, "nothing is computed in vain"


@pytest.mark.parametrize("layers", [1, 16])
@pytest.mark.parametrize("cell", CELLS)
def test_a_file_comes_back_as_it_was(cell: Cell, layers: int) -> None:
    file = checkpoint(cell, layers)
    written = as_onnx(file)

    assert may_be_onnx(written[:8])
    assert not may_be_onnx(file[:8])
    assert back(written) == file
    assert checkpoint_of_onnx(io.BytesIO(written))[0] == read_info(file, file_bytes=len(file))


def test_a_header_is_the_one_that_safetensors_writes() -> None:
    file = checkpoint()
    assert checkpoint_header(read_info(file)) == file[: header_bytes(file[:8])]


def resaved(change: Callable[[ModelProto], object] = lambda _: None) -> bytes:
    """A file that another program has read, changed and written."""
    model = onnx.load_from_string(as_onnx(checkpoint()))
    change(model)
    return model.SerializeToString()


def described(model: ModelProto) -> None:
    model.producer_version, model.doc_string, model.graph.doc_string = "9", "mine", "mine as well"
    model.graph.name = "mine"
    entry = model.metadata_props.add()
    entry.key, entry.value = "author", "someone"
    model.graph.initializer.sort(key=lambda tensor: len(tensor.name))
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize("change", [lambda _: None, described])
def test_a_file_that_another_program_saved_again_is_taken(change: Callable[[ModelProto], object]) -> None:
    assert back(resaved(change)) == checkpoint()


def tensor_called(model: ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def as_floats(model: ModelProto) -> None:
    tensor = tensor_called(model, "output.bias")
    tensor.float_data.extend(np.frombuffer(tensor.raw_data, np.float32))
    tensor.ClearField("raw_data")


def cut(model: ModelProto) -> None:
    tensor = tensor_called(model, "output.bias")
    tensor.raw_data = tensor.raw_data[:-4]


def kept_outside(model: ModelProto) -> None:
    tensor = tensor_called(model, "output.bias")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")


def other_activation(model: ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Tanh").op_type = "Relu"


def other_document(change: dict[str, object]) -> Callable[[ModelProto], None]:
    def apply(model: ModelProto) -> None:
        entry = model.metadata_props[0]
        entry.value = json.dumps(json.loads(entry.value) | change)

    return apply


WRONG: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "another graph": (other_activation, "the graph is not the one"),
    "a node more": (lambda m: m.graph.node.add(op_type="Identity", input=["logits"], output=["x"]), "the graph is not"),
    "a tensor more": (lambda m: m.graph.initializer.add(name="x", data_type=1, dims=[0]), "the graph is not the one"),
    "a tensor less": (lambda m: m.graph.initializer.pop(), "the graph is not the one"),
    "a tensor twice": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "the graph is not the one"),
    "another name": (lambda m: setattr(m.graph.initializer[0], "name", "x"), "the graph is not the one"),
    "another shape": (lambda m: m.graph.initializer[0].dims.append(1), "the graph is not the one"),
    "another type": (lambda m: setattr(m.graph.initializer[0], "data_type", 6), "the graph is not the one"),
    "another output": (lambda m: setattr(m.graph.output[0], "name", "next_state"), "the graph is not the one"),
    "other operators": (lambda m: setattr(m.opset_import[0], "version", 18), "the graph is not the one"),
    "a function": (lambda m: m.functions.add(name="Gemm"), "the graph is not the one"),
    "numbers as floats": (as_floats, "the graph is not the one"),
    "numbers elsewhere": (kept_outside, "the graph is not the one"),
    "numbers missing": (lambda m: m.graph.initializer[0].ClearField("raw_data"), "not stored as raw bytes"),
    "numbers cut off": (cut, "not stored as raw bytes"),
    "no graph": (lambda m: m.ClearField("graph"), "there is no graph"),
    "no metadata": (lambda m: m.ClearField("metadata_props"), "no entry `charsmith`"),
    "another vocabulary": (other_document({"vocabulary": "abc"}), "the graph is not the one"),
    "vocabulary of no order": (other_document({"vocabulary": "ba"}), "vocabulary"),
    "another format": (other_document({"format": 2}), "format 2 is not known"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_says_something_else_is_refused(what: str) -> None:
    change, message = WRONG[what]
    with pytest.raises(InvalidCheckpoint, match=message):
        back(resaved(change))


def delimited(number: int, content: bytes) -> bytes:
    length, prefix = len(content), bytearray([number << 3 | 2])
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(prefix) + bytes([length]) + content


VERSION = b"\x08\x08"
BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "there is no graph"),
    "two graphs": (VERSION + delimited(7, b"") * 2, "two graphs"),
    "a length past the end": (VERSION + b"\x3a\x7f", "cut off"),
    "a number that never ends": (VERSION + b"\xff" * 100, "cut off"),
    "a group": (VERSION + b"\x3b", "no protobuf message"),
    "numbers twice": (VERSION + delimited(7, delimited(5, delimited(9, b"") * 2)), "its numbers twice"),
    "a graph that is a number": (VERSION + b"\x38\x01", "there is no graph"),
    "many parts": (VERSION + delimited(7, delimited(5, b"") * MAX_FIELDS), f"more than {MAX_FIELDS} parts"),
    "a great graph": (VERSION + delimited(7, delimited(1, bytes(MAX_GRAPH_BYTES))), "more than"),
    "great metadata": (VERSION + delimited(14, bytes(1 << 24)), "more than"),
    "rubbish": (VERSION + delimited(7, delimited(1, b"\xff\xff\xff")), "not an ONNX file"),
    "a name that is no text": (VERSION + delimited(7, b"") + delimited(14, delimited(1, b"\xff")), "charsmith|ONNX"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_file_of_ours_is_refused(what: str) -> None:
    file, message = BROKEN[what]
    with pytest.raises(InvalidCheckpoint, match=message):
        back(file)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.999])
def test_a_file_that_is_cut_off_is_refused(share: float) -> None:
    written = as_onnx(checkpoint())
    with pytest.raises(InvalidCheckpoint):
        back(written[: int(len(written) * share)])


@given(changes=st.lists(st.tuples(st.integers(0, 11_000), st.integers(1, 255)), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_damage_anywhere_is_refused_or_changes_numbers_and_words_alone(changes: list[tuple[int, int]]) -> None:
    original = as_onnx(checkpoint())
    damaged = bytearray(original)
    for place, change in changes:
        damaged[place % len(damaged)] ^= change
    try:
        info, pieces = checkpoint_of_onnx(io.BytesIO(bytes(damaged)))
    except InvalidCheckpoint:
        return
    file = b"".join(pieces)
    assert read_info(file, file_bytes=len(file)) == info
    # Its dropout, of training alone, is nowhere in the graph.
    assert replace(info.config, dropout=0) == replace(read_info(checkpoint()).config, dropout=0)


def test_a_checkpoint_that_ends_early_is_told_not_written() -> None:
    file = checkpoint()
    with pytest.raises(InvalidCheckpoint, match="ends too early"):
        as_onnx(file[:-1])
    with pytest.raises(InvalidCheckpoint, match="ends too early"):
        as_onnx(file[:100])


def test_tensors_may_lie_in_another_order() -> None:
    file = checkpoint()
    length = header_bytes(file[:8])
    entries = json.loads(file[8:length])
    metadata = entries.pop("__metadata__")
    moved, numbers = {}, b""
    for name, entry in reversed(entries.items()):
        begin, end = entry["data_offsets"]
        moved[name] = entry | {"data_offsets": [len(numbers), len(numbers) + end - begin]}
        numbers += file[length + begin : length + end]
    header = json.dumps({"__metadata__": metadata} | moved).encode()
    other = len(header).to_bytes(8, "little") + header + numbers

    assert back(as_onnx(other)) == file


def test_what_would_be_too_large_is_refused_before_its_weights_are_read() -> None:
    info = CheckpointInfo(ModelConfig(hidden_size=16_384, num_layers=1), VOCABULARY, 1)

    def pieces() -> Iterator[bytes]:
        yield checkpoint_header(info)
        raise AssertionError("the weights are read")

    with pytest.raises(TooLargeForOnnx, match="at most 2147483647 bytes, this one would have 4"):
        onnx_of_checkpoint(pieces())


def test_memory_does_not_grow_with_the_network() -> None:
    file = checkpoint("lstm", 1, 1500)
    assert len(file) > 35e6
    written = io.BytesIO(as_onnx(file))
    tracemalloc.start()
    try:
        _, there = onnx_of_checkpoint(file[begin : begin + (1 << 20)] for begin in range(0, len(file), 1 << 20))
        for _ in there:
            pass
        _, again = checkpoint_of_onnx(written)
        for _ in again:
            pass
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()


HOSTILE = """
import io, re, sys
from pathlib import Path
from models.checkpoint_header import InvalidCheckpoint
from models.onnx_file import checkpoint_of_onnx

def peak():
    return int(re.search(r"^VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1]) * 1024

file = io.BytesIO(sys.stdin.buffer.read())
before = peak()
try:
    checkpoint_of_onnx(file)
except InvalidCheckpoint:
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("inner", [5, 6, 10, 11], ids=["attributes", "t", "g", "tensors"])
def test_a_file_of_nothing_but_empty_messages_takes_little_memory(inner: int) -> None:
    """Protobuf's own memory, which tracemalloc does not see."""
    metadata = delimited(1, b"charsmith") + delimited(2, metadata_of(read_info(checkpoint()))["charsmith"].encode())
    room = MAX_GRAPH_BYTES - 200
    node = delimited(5, b"") * (room // 2) if inner == 5 else delimited(5, delimited(inner, b"") * (room // 2))
    file = VERSION + delimited(7, delimited(1, node)) + delimited(14, metadata)
    done = subprocess.run([sys.executable, "-c", HOSTILE], input=file, capture_output=True, check=True, timeout=60)

    assert int(done.stdout) < 64e6
