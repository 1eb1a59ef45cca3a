"""One self-contained safetensors file <-> a network with its configuration and vocabulary.

Knows neither stores nor training. Nothing is pickled or unpickled. Invariant: what `decode_checkpoint` returns has the
shapes that its configuration says and finite weights only; the same network and info give the same bytes.
"""

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from models.checkpoint_header import CheckpointInfo, InvalidCheckpoint, metadata_of, read_info
from models.rnn import CharRNN

__all__ = ["CheckpointInfo", "InvalidCheckpoint", "decode_checkpoint", "encode_checkpoint", "read_info"]


def encode_checkpoint(network: CharRNN, info: CheckpointInfo) -> bytes:
    """The file for a network: float32 weights and what `info` says. Raises ValueError if that is another network's."""
    if network.config != info.config or network.vocabulary_size != len(info.vocabulary):
        raise ValueError("the info describes another network")
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, metadata_of(info))


def decode_checkpoint(data: bytes) -> tuple[CharRNN, CheckpointInfo]:
    """The network of a checkpoint file, on the CPU and in `eval()` mode, and what the file says about it.

    Raises InvalidCheckpoint for anything that is not a checkpoint, also for weights that are not finite.
    """
    info = read_info(data, file_bytes=len(data))
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise InvalidCheckpoint(f"not a safetensors file: {error}") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InvalidCheckpoint(f"tensor {name} holds values that are not finite")
    with torch.device("meta"):  # no memory for initial weights, no random numbers drawn for them
        network = CharRNN(info.config, len(info.vocabulary))
    network.load_state_dict(tensors, assign=True)
    return network.eval(), info
