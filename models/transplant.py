"""The weights of one network put into another of the same shape that knows more characters.

Knows neither files nor training. Invariant: what the old network had keeps its bits, only the rows of characters move
to their places in the new vocabulary; so without new characters the two networks are the same.

Shape suffixes: V characters of the new vocabulary, K of the old one, H hidden, X embedding.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from models.rnn import CharRNN
from models.vocabulary import Vocabulary

NEW_SHARE = 0.01
"""Of all probability where the network has seen nothing: so much for all new characters together.

Where it has seen something it is surer, so they have less: old texts cost 0.001 nats per character more than before,
nowhere more than 0.01, for one new character as for 5,000 (docs/decisions.md)."""


def transplant(origin: CharRNN, known: Vocabulary, network: CharRNN, vocabulary: Vocabulary) -> None:
    """Put the weights of `origin` into `network`, whose `vocabulary` has all characters `known` to `origin`.

    The embeddings of new characters stay as they are in `network`: drawn, as all initial ones are. Their rows of the
    output become zeros, with a bias that makes them improbable. Raises ValueError if the networks differ in shape, or
    in normalization, or `vocabulary` lacks a character.
    """
    if replace(origin.config, dropout=network.config.dropout) != network.config:
        raise ValueError("the checkpoint is of another network")
    places_K = torch.from_numpy(vocabulary.encode(known.characters)).long()
    weights = dict(origin.named_parameters())
    with torch.no_grad():
        _empty_output(network, weights["output.bias"])
        for name, parameter in network.named_parameters():
            old = weights[name].to(parameter.device)
            if name in ("embedding.weight", "output.weight", "output.bias"):
                parameter[places_K.to(parameter.device)] = old
            else:
                parameter.copy_(old)


def _empty_output(network: CharRNN, known_bias_K: Tensor) -> None:
    """The output as if all characters were new."""
    network.output.weight.zero_()
    new = network.vocabulary_size - len(known_bias_K)
    if new:
        network.output.bias.fill_(_new_bias(known_bias_K, new))


def _new_bias(known_bias_K: Tensor, new: int) -> float:
    """The bias of each of `new` characters: together they have NEW_SHARE of what a state of zeros predicts."""
    return known_bias_K.logsumexp(0).item() + math.log(NEW_SHARE / (1 - NEW_SHARE) / new)
