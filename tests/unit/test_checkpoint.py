"""A checkpoint comes back as it was; anything else is refused before a byte of it is trusted."""

import json
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from models.checkpoint import CheckpointInfo, InvalidCheckpoint, decode_checkpoint, encode_checkpoint, read_info
from models.checkpoint_header import header_bytes
from models.config import CELLS, Cell, ModelConfig, TrainingConfig
from models.rnn import CharRNN
from models.vocabulary import Vocabulary

VOCABULARY = Vocabulary(sorted('\n abc"\\é語👍'))


def info_of(cell: Cell = "gru", **settings: Any) -> CheckpointInfo:
    config = ModelConfig(cell=cell, hidden_size=6, num_layers=2, embedding_size=3, normalization="nfc")
    return CheckpointInfo(config, VOCABULARY, 42, 1.5, None, TrainingConfig(steps=99).as_dict())


def file_of(info: CheckpointInfo) -> bytes:
    return encode_checkpoint(CharRNN(info.config, len(info.vocabulary)), info)


@pytest.mark.parametrize("cell", CELLS)
def test_a_checkpoint_comes_back_as_it_was(cell: Cell, tmp_path: Path) -> None:
    info = info_of(cell)
    network = CharRNN(info.config, len(VOCABULARY))
    data = encode_checkpoint(network, info)
    again, info_again = decode_checkpoint(data)
    assert info_again == info
    assert not again.training
    for (name, weight), other in zip(network.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(weight, other), name
    ids, state = torch.tensor([[1, 2, 3]]), network.initial_state(1)
    assert torch.equal(network.eval()(ids, state)[0], again(ids, state)[0])
    (tmp_path / "model.safetensors").write_bytes(data)
    assert read_info(tmp_path / "model.safetensors") == info


def test_the_same_network_gives_the_same_bytes() -> None:
    info = info_of()
    network = CharRNN(info.config, len(VOCABULARY))
    assert encode_checkpoint(network, info) == encode_checkpoint(network, info)


def test_reading_draws_no_random_numbers() -> None:
    data = file_of(info_of())
    before = torch.get_rng_state()
    decode_checkpoint(data)
    assert torch.equal(before, torch.get_rng_state())


def test_the_header_alone_tells_everything() -> None:
    data = file_of(info_of())
    assert read_info(memoryview(data)[: header_bytes(data[:8])]) == info_of()


def test_the_header_is_read_without_torch() -> None:
    code = "import sys, models.checkpoint_header; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_any_safetensors_reader_can_open_it() -> None:
    assert safetensors.torch.load(file_of(info_of()))["output.bias"].shape == (len(VOCABULARY),)


def test_an_info_of_another_network_is_not_written() -> None:
    with pytest.raises(ValueError, match="another network"):
        encode_checkpoint(CharRNN(info_of("gru").config, len(VOCABULARY)), info_of("lstm"))


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('a pickle was loaded')",)


def with_header(change: Callable[[dict[str, Any]], None]) -> bytes:
    data = file_of(info_of())
    end = header_bytes(data[:8])
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def with_document(**members: Any) -> bytes:
    def change(header: dict[str, Any]) -> None:
        document = json.loads(header["__metadata__"]["charsmith"])
        document.update(members)
        header["__metadata__"]["charsmith"] = json.dumps(document)

    return with_header(change)


def with_entry(name: str, **members: Any) -> bytes:
    return with_header(lambda header: header[name].update(members))


def with_weight(value: float) -> bytes:
    info = info_of()
    network = CharRNN(info.config, len(VOCABULARY))
    with torch.no_grad():
        network.output.bias[1] = value
    return encode_checkpoint(network, info)


MODEL = info_of().config.as_dict()
HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "seven bytes": lambda: b"1234567",
    "a pickle": lambda: pickle.dumps(Trap()),
    "zeros": lambda: bytes(1000),
    "a header of a terabyte": lambda: (1 << 40).to_bytes(8, "little") + b"{}",
    "a header longer than the file": lambda: (1000).to_bytes(8, "little") + b"{}",
    "a header that is no JSON": lambda: (4).to_bytes(8, "little") + b"{{{{",
    "a header that is a list": lambda: (2).to_bytes(8, "little") + b"[]",
    "a header nested too deep": lambda: (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "a header with a key twice": lambda: (14).to_bytes(8, "little") + b'{"a":1, "a":2}',
    "no metadata": lambda: with_header(lambda header: header.pop("__metadata__")),
    "foreign metadata": lambda: safetensors.torch.save({"a": torch.zeros(2)}, {"format": "pt"}),
    "another format": lambda: with_document(format=2),
    "an unknown setting": lambda: with_document(config={**MODEL, "x": 1}),
    "an enormous network": lambda: with_document(config={**MODEL, "hidden_size": 16_384}),
    "an impossible network": lambda: with_document(config={**MODEL, "hidden_size": 10**9}),
    "settings that are a list": lambda: with_document(config=[]),
    "an unsorted vocabulary": lambda: with_document(vocabulary="ba"),
    "a vocabulary with a surrogate": lambda: with_document(vocabulary=VOCABULARY.characters[:-1] + "\ud800"),
    "an empty vocabulary": lambda: with_document(vocabulary=""),
    "a vocabulary of another size": lambda: with_document(vocabulary="ab"),
    "a vocabulary that is a number": lambda: with_document(vocabulary=5),
    "a negative step": lambda: with_document(step=-1),
    "a step that is true": lambda: with_document(step=True),
    "a loss that is a text": lambda: with_document(val_loss="low"),
    "a loss beyond floats": lambda: with_document(train_loss=10**400),
    "a loss that is not a number": lambda: with_document(train_loss=float("nan")),
    "invalid training settings": lambda: with_document(training={"steps": -1}),
    "a tensor missing": lambda: with_header(lambda header: header.pop("output.bias")),
    "a tensor too many": lambda: with_header(lambda header: header.update(more=header["output.bias"])),
    "a wrong shape": lambda: with_entry("output.bias", shape=[5, 2]),
    "a wrong type": lambda: with_entry("output.bias", dtype="F64"),
    "overlapping tensors": lambda: with_entry("output.bias", data_offsets=[0, 4 * len(VOCABULARY)]),
    "negative offsets": lambda: with_entry("output.bias", data_offsets=[-4, 4 * len(VOCABULARY) - 4]),
    "offsets that are texts": lambda: with_entry("output.bias", data_offsets=["0", "1"]),
    "a tensor that is a number": lambda: with_header(lambda header: header.update({"output.bias": 1})),
    "a truncated file": lambda: file_of(info_of())[:-1],
    "a byte too many": lambda: file_of(info_of()) + b"x",
    "a NaN among the weights": lambda: with_weight(float("nan")),
    "an infinite weight": lambda: with_weight(float("inf")),
}


MEGABYTES = {
    "lists": b"[" + b"[]," * 1_000_000 + b"[]]",
    "objects": b"[" + b"{}," * 1_000_000 + b"{}]",
    "numbers": b"[" + b"1.5," * 1_000_000 + b"1]",
    "texts": b"[" + b'"ab",' * 1_000_000 + b"1]",
    "keys": b"{" + b",".join(b'"%d":0' % n for n in range(500_000)) + b"}",
}


@pytest.mark.parametrize("kind", MEGABYTES)
@pytest.mark.parametrize("inner", [False, True], ids=["header", "metadata"])
def test_a_header_of_millions_of_parts_is_refused_before_they_are_made(kind: str, inner: bool) -> None:
    text = MEGABYTES[kind]
    if inner:  # escaped, so that the header itself holds none of the marks
        escaped = "".join(f"\\u{ord(c):04x}" if c in '[{,"' else c for c in text.decode())
        text = b'{"__metadata__":{"charsmith":"%s"}}' % escaped[:16_000_000].encode()
    tracemalloc.start()
    with pytest.raises(InvalidCheckpoint, match="more than"):
        read_info(len(text).to_bytes(8, "little") + text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(text), "copies of the text, and nothing made of it"


def test_the_largest_network_of_all_has_a_header_that_is_taken() -> None:
    """All layers, and a vocabulary of every character, which has each mark once."""
    points = (point for point in range(1, 0x110000) if not 0xD800 <= point < 0xE000)
    vocabulary = Vocabulary("".join(map(chr, points)))
    config = ModelConfig("lstm", 1, 16, 1)
    training = TrainingConfig(steps=10**9, patience=10**6, evaluate_every=10**9)
    info = CheckpointInfo(config, vocabulary, 42, 1.5, 1.5, training.as_dict())
    assert read_info(encode_checkpoint(CharRNN(config, len(vocabulary)), info)) == info


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str) -> None:
    with pytest.raises(InvalidCheckpoint):
        decode_checkpoint(HOSTILE[name]())
