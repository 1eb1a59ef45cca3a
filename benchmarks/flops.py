"""How many operations a training step needs: the numerator of its share of the machine's peak."""

from models.config import GATES, ModelConfig

FORMULA = (
    "FLOP of a step = 3 x forward x batch x sequence (backward is twice forward), forward per character = "
    "2 x gates x hidden x (input + hidden) for each layer, plus 2 x hidden x vocabulary"
)


def step_flop(model: ModelConfig, vocabulary_size: int, batch_size: int, sequence_length: int) -> float:
    """Operations of one step, a multiplication and an addition counted as two. Products of matrices alone count."""
    width, forward = model.embedding_size, 0
    for _ in range(model.num_layers):
        forward += 2 * GATES[model.cell] * model.hidden_size * (width + model.hidden_size)
        width = model.hidden_size
    forward += 2 * model.hidden_size * vocabulary_size
    return 3.0 * forward * batch_size * sequence_length
