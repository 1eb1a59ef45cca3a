"""What onnxruntime writes with an exported file, with nothing at hand but the file and how we draw a character."""

import json

import numpy as np
import onnxruntime

from models.sampling import SamplingConfig, draw, noise_key, uniform


def session_of(file: bytes) -> onnxruntime.InferenceSession:
    """The file's graph, to be run on the CPU."""
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def written_by_onnxruntime(file: bytes, prompt: str, characters: int, sampling: SamplingConfig, seed: int) -> str:
    """So many characters after the prompt."""
    session, key = session_of(file), noise_key(seed, 0)
    vocabulary = json.loads(session.get_modelmeta().custom_metadata_map["charsmith"])["vocabulary"]
    layers, parts, _, hidden = session.get_inputs()[1].shape
    state, text = np.zeros((layers, parts, 1, hidden), np.float32), prompt
    for place in range(len(prompt) + characters - 1):
        logits, state = session.run(None, {"id": np.array([vocabulary.index(text[place])]), "state": state})
        if place + 1 == len(text):
            text += vocabulary[draw(logits[0], sampling, uniform(key, len(text) - len(prompt)))]
    return text.removeprefix(prompt)
