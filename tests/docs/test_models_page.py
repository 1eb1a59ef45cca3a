"""The lines of docs/models.md load every kind of network, and it says what ours says. Those for ONNX are run with the
other blocks; that onnxruntime says what we say is tests/unit/test_onnx_file.py's."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoint import CheckpointInfo, encode_checkpoint
from models.config import CELLS, Cell, ModelConfig
from models.rnn import CharRNN
from models.vocabulary import Vocabulary
from tests.docs.blocks import blocks_of

LOADING, _, _ = (block.text for block in blocks_of("docs/models.md", "python"))
VOCABULARY = Vocabulary(sorted("\n abcdé語"))
TEN = 10


def run(code: str, names: dict[str, Any]) -> None:
    exec(code, names)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_a_file_loads_in_plain_pytorch_and_gives_the_same_logits(
    cell: Cell, layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(cell=cell, hidden_size=7, num_layers=layers, embedding_size=5)
    ours = CharRNN(config, len(VOCABULARY)).eval()
    monkeypatch.chdir(tmp_path)
    Path("mine.safetensors").write_bytes(encode_checkpoint(ours, CheckpointInfo(config, VOCABULARY, 1)))

    names: dict[str, Any] = {}
    run(LOADING, names)
    ids = torch.randint(len(VOCABULARY), (1, 20))
    weights = names["weights"]
    with torch.inference_mode():
        outputs, _ = names["network"](weights["embedding.weight"][ids])
        logits = outputs @ weights["output.weight"].T + weights["output.bias"]
        expected, _ = ours(ids, ours.initial_state(1))
    assert (logits - expected).abs().max() < 1e-5
    assert names["vocabulary"] == VOCABULARY.characters


def test_it_takes_ten_lines() -> None:
    assert len([line for line in LOADING.splitlines() if line]) == TEN
