"""CharRNN folded for inference: its weights, laid out once for the products that write and score.

The embedding and the first layer's input weights are one table, looked up by character. Products are in bfloat16 where
the hardware multiplies it, else float32; the output layer's are float32, since logits of ten would be rounded to a
thirtieth. Shape suffixes as in models.inference.
"""

import numpy as np
import torch
from torch import Tensor

from models.products import Weight, array_of
from models.rnn import CharRNN

PACKED_FOR = {torch.bfloat16: 1, torch.float32: 16}
"""Rows that oneDNN's layout is made for. With these a row's product has the same bits among 1 to 128 rows (seen with
AMX): made for 16, bfloat16's of 8 to 33 rows had others; made for one, float32's of a single row."""
TABLE_ROWS = 1024
"""Of the table that are computed at once, in float32."""
TRIED_ROWS = (1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 31, 32, 33, 48, 64, 65, 96)
MOST_TRIED_ROWS = 128
"""Numbers of rows that a weight is tried with: powers of two and their neighbours, where libraries change kernels."""


class Folded:
    """The weights of one network on the CPU. Raises RuntimeError when torch refuses a product."""

    def __init__(self, network: CharRNN, dtype: torch.dtype) -> None:
        tensors = dict(network.named_parameters())
        layers = [f"layers.{layer}" for layer in range(network.config.num_layers)]

        def weights(kind: str, layers: list[str]) -> list[Weight]:
            return [_weight(tensors[f"{name}.weight_{kind}"], tensors[f"{name}.bias_{kind}"], dtype) for name in layers]

        with torch.inference_mode():
            input_weights_GX, input_bias_G = tensors["layers.0.weight_ih_l0"], tensors["layers.0.bias_ih_l0"]
            table_VG = torch.empty(network.vocabulary_size, len(input_bias_G), dtype=dtype)
            for begin in range(0, len(table_VG), TABLE_ROWS):
                rows_VX = network.embedding.weight[begin : begin + TABLE_ROWS]
                table_VG[begin : begin + TABLE_ROWS] = torch.addmm(input_bias_G, rows_VX, input_weights_GX.T)
            self.table_VG = array_of(table_VG)
            self.recurrent, self.inputs = weights("hh_l0", layers), weights("ih_l0", layers[1:])
            self.output = _weight(network.output.weight, network.output.bias, torch.float32)
        self.recurrent_LW = np.stack([weight.numbers for weight in self.recurrent])
        no_weight = np.zeros_like(self.recurrent[0].numbers)  # the first layer looks its inputs up
        self.inputs_LW = np.stack([no_weight, *(weight.numbers for weight in self.inputs)])
        self.dtype = dtype
        """Of the products, but for the output layer's."""
        self.bytes = folded_bytes(network, dtype)
        self.bytes_per_character: int = self.bytes - self.table_VG.nbytes + self.table_VG[0].nbytes
        """That are read for one row's next character."""
        self.row_invariant = all(map(_is_row_invariant, [*self.recurrent, *self.inputs, self.output]))
        """Whether a row's products have the same bits among others."""


def folded_bytes(network: CharRNN, dtype: torch.dtype) -> int:
    """Memory of the folded network: a large vocabulary's table is more than embedding and input weights were."""
    total = 0
    for name, parameter in network.named_parameters():
        of_table = name in ("embedding.weight", "layers.0.weight_ih_l0", "layers.0.bias_ih_l0")
        itemsize = 4 if name.startswith("output") else dtype.itemsize
        total += 0 if of_table else parameter.numel() * itemsize
    gates = len(network.get_parameter("layers.0.bias_ih_l0"))
    return total + network.vocabulary_size * gates * dtype.itemsize


def _weight(matrix: Tensor, bias: Tensor, dtype: torch.dtype) -> Weight:
    return Weight(matrix.to(dtype), bias.to(dtype), PACKED_FOR[dtype])


def _is_row_invariant(weight: Weight) -> bool:
    normal_BK = np.random.default_rng(0).standard_normal((MOST_TRIED_ROWS, weight.inputs), np.float32)
    values_BK = array_of(torch.from_numpy(normal_BK).to(weight.dtype))
    whole_BN = weight.times(values_BK)
    return all(np.array_equal(weight.times(values_BK[:rows]), whole_BN[:rows]) for rows in TRIED_ROWS)
