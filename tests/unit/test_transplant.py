"""A network that goes on with more characters: it has unlearnt nothing, and expects none of the new ones."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from models.config import CELLS, Cell, ModelConfig
from models.rnn import CharRNN
from models.transplant import NEW_SHARE, transplant
from models.vocabulary import UnknownCharacter, Vocabulary

KNOWN = Vocabulary("bdf")
CONFIG = ModelConfig(hidden_size=12, num_layers=2, embedding_size=6)


def network_of(vocabulary: Vocabulary, seed: int, config: ModelConfig = CONFIG) -> CharRNN:
    torch.manual_seed(seed)
    network = CharRNN(config, len(vocabulary)).eval()
    with torch.no_grad():
        network.output.bias.normal_()
    return network


def loss(network: CharRNN, vocabulary: Vocabulary, text: str) -> float:
    ids_1T = torch.from_numpy(vocabulary.encode(text)).long()[None]
    with torch.no_grad():
        logits_1TV, _ = network(ids_1T[:, :-1], network.initial_state(1))
    return F.cross_entropy(logits_1TV[0], ids_1T[0, 1:]).item()


@pytest.mark.parametrize("cell", CELLS)
def test_without_new_characters_it_is_the_same_network_to_the_bit(cell: Cell) -> None:
    config = replace(CONFIG, cell=cell)
    origin, network = network_of(KNOWN, 1, config), network_of(KNOWN, 2, replace(config, dropout=0.7))
    transplant(origin, KNOWN, network, KNOWN)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, origin.get_parameter(name)), name
    assert loss(network, KNOWN, "bdfbbdf") == loss(origin, KNOWN, "bdfbbdf")


@pytest.mark.parametrize("added", ["a", "z", "acegz"])
def test_rows_of_characters_move_to_their_new_places_and_keep_their_bits(added: str) -> None:
    vocabulary = KNOWN.extended(added)
    origin, network, fresh = network_of(KNOWN, 1), network_of(vocabulary, 2), network_of(vocabulary, 2)
    transplant(origin, KNOWN, network, vocabulary)
    for character in KNOWN.characters:
        old, new = KNOWN.characters.index(character), vocabulary.characters.index(character)
        for rows in ("embedding.weight", "output.weight", "output.bias"):
            assert torch.equal(network.get_parameter(rows)[new], origin.get_parameter(rows)[old]), (rows, character)
    for character in added:
        new = vocabulary.characters.index(character)
        assert torch.equal(network.embedding.weight[new], fresh.embedding.weight[new]), "as drawn by the seed"
        assert not network.output.weight[new].any()
    for name, parameter in network.layers.named_parameters():
        assert torch.equal(parameter, origin.layers.get_parameter(name)), name


@pytest.mark.parametrize("count", [1, 50, 5_000])
def test_all_new_characters_together_have_a_small_share_however_many_they_are(count: int) -> None:
    added = "".join(chr(0x4E00 + n) for n in range(count))
    vocabulary = KNOWN.extended(added)
    origin, network = network_of(KNOWN, 1), network_of(vocabulary, 2)
    transplant(origin, KNOWN, network, vocabulary)
    shares_V = network.output(torch.zeros(CONFIG.hidden_size)).softmax(0)
    assert shares_V[vocabulary.encode(added).tolist()].sum().item() == pytest.approx(NEW_SHARE, rel=1e-4)
    rise = loss(network, vocabulary, "bdfbbdf" * 5) - loss(origin, KNOWN, "bdfbbdf" * 5)
    assert 0 < rise < 2 * NEW_SHARE


def test_a_network_of_another_shape_or_with_fewer_characters_is_refused() -> None:
    origin = network_of(KNOWN, 1)
    for other in (replace(CONFIG, cell="gru"), replace(CONFIG, hidden_size=13), replace(CONFIG, normalization="nfc")):
        with pytest.raises(ValueError, match="another network"):
            transplant(origin, KNOWN, network_of(KNOWN, 2, other), KNOWN)
    fewer = Vocabulary("bd")
    with pytest.raises(UnknownCharacter, match="'f'"):
        transplant(origin, KNOWN, network_of(fewer, 2), fewer)
