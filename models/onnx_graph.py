"""The network as an ONNX graph of one step: a character and a state in, logits and the next state out.

Knows no weights and no files: what it makes has the weights' names, types and shapes, and no numbers yet. The graph is
written out in elementary operators, not ONNX's own LSTM, GRU and RNN: the weights stay PyTorch's, under the names that
they have in a checkpoint, and whoever opens the graph reads the formulas. Invariant: the same info, the same graph.

    id           int64 [rows], a character's place in the vocabulary
    state        float32 [layers, parts, rows, hidden]; zeros before the first character; parts: 1, an LSTM's 2, hidden
                 and cell
    logits       float32 [rows, vocabulary]; their softmax is the distribution of the next character
    next_state   as `state`
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from models.checkpoint_header import CheckpointInfo, metadata_of
from models.config import ModelConfig

OPSET = 17
"""And the file format that came with it, both of 2022: what runs ONNX at all runs these."""
IR_VERSION = 8
PRODUCER = "charsmith"
ROWS = "rows"


def onnx_model(info: CheckpointInfo) -> ModelProto:
    """The whole file but for the weights' numbers; its metadata are those of the safetensors file."""
    operators = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        _graph(info.config, len(info.vocabulary)),
        producer_name=PRODUCER,
        ir_version=IR_VERSION,
        opset_imports=operators,
    )
    helper.set_model_props(model, metadata_of(info))
    return model


def _graph(config: ModelConfig, vocabulary_size: int) -> GraphProto:
    state_shape: list[int | str | None] = [config.num_layers, _parts(config), ROWS, config.hidden_size]
    made = _Nodes()
    made.constants(config)
    values = made.node("Gather", "embedding.weight", "id", to="embedded")
    states = []
    for layer in range(config.num_layers):
        made.layer = layer
        before = made.node("Gather", "state", f"number.{layer}", to="state")
        values, after = _STEPS[config.cell](made, values, before)
        states.append(made.node("Unsqueeze", after, "first_axis", to="next_state"))
    made.layer = None
    made.node("Concat", *states, to="next_state", axis=0)
    made.node("Gemm", values, "output.weight", "output.bias", to="logits", transB=1)
    weights = [
        TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        for name, shape in sorted(config.parameter_shapes(vocabulary_size).items())
    ]
    return helper.make_graph(
        made.nodes,
        f"one step of {config.cell}",
        [
            helper.make_tensor_value_info("id", TensorProto.INT64, [ROWS]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, state_shape),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [ROWS, vocabulary_size]),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, state_shape),
        ],
        weights,
    )


def _parts(config: ModelConfig) -> int:
    return 2 if config.cell == "lstm" else 1


@dataclass
class _Nodes:
    """The nodes so far. What those of a layer give bears its number: `layers.0.reset`."""

    nodes: list[NodeProto] = field(default_factory=list)
    layer: int | None = None

    def node(self, operator: str, *inputs: str, to: str, **attributes: object) -> str:
        """One more; the name of what it gives."""
        return self.node_of_several(operator, *inputs, to=(to,), **attributes)[0]

    def node_of_several(self, operator: str, *inputs: str, to: tuple[str, ...], **attributes: object) -> list[str]:
        """One more; the names of what it gives."""
        names = [name if self.layer is None else f"layers.{self.layer}.{name}" for name in to]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))  # type: ignore[arg-type]
        return names

    def constants(self, config: ModelConfig) -> None:
        """Numbers of layers and of parts, for `Gather`, and an axis, for `Unsqueeze`."""
        for number in range(max(config.num_layers, _parts(config))):
            self.node("Constant", to=f"number.{number}", value_int=number)
        self.node("Constant", to="first_axis", value_ints=[0])

    def part(self, states: str, number: int, to: str) -> str:
        """The hidden state (0) or an LSTM's cell (1), [rows, hidden], of a layer's [parts, rows, hidden]."""
        return self.node("Gather", states, f"number.{number}", to=to)

    def product(self, values: str, kind: str) -> str:
        """`W x + b` with the layer's weights of the input (`ih`) or of the hidden state (`hh`)."""
        weight, bias = (f"layers.{self.layer}.{what}_{kind}_l0" for what in ("weight", "bias"))
        return self.node("Gemm", values, weight, bias, to=f"of_{kind}", transB=1)

    def sum(self, left: str, right: str, to: str) -> str:
        return self.node("Add", left, right, to=to)

    def gates(self, sums: str, *to: str) -> list[str]:
        """Blocks of `hidden` columns."""
        return self.node_of_several("Split", sums, to=to, axis=1)

    def parts(self, *states: str) -> str:
        """The layer's [parts, rows, hidden], of its parts."""
        lone = [self.node("Unsqueeze", state, "first_axis", to=f"part.{n}") for n, state in enumerate(states)]
        return self.node("Concat", *lone, to="parts", axis=0)


Step = Callable[[_Nodes, str, str], tuple[str, str]]
"""Adds a layer's nodes: from what it reads and its state of before to what it gives and its state afterwards."""


def _plain(activation: str) -> Step:
    def step(made: _Nodes, values: str, before: str) -> tuple[str, str]:
        """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or ReLU of it (Elman 1990)."""
        hidden = made.part(before, 0, "hidden")
        sums = made.sum(made.product(values, "ih"), made.product(hidden, "hh"), "sums")
        after = made.node(activation, sums, to="next_hidden")
        return after, made.parts(after)

    return step


def _gru(made: _Nodes, values: str, before: str) -> tuple[str, str]:
    """h' = n + z (h - n), n = tanh(n_x + r n_h): Cho and others 2014, in cuDNN's form."""
    hidden = made.part(before, 0, "hidden")
    reset_x, update_x, new_x = made.gates(made.product(values, "ih"), "reset_x", "update_x", "new_x")
    reset_h, update_h, new_h = made.gates(made.product(hidden, "hh"), "reset_h", "update_h", "new_h")
    reset = made.node("Sigmoid", made.sum(reset_x, reset_h, "reset_sum"), to="reset")
    update = made.node("Sigmoid", made.sum(update_x, update_h, "update_sum"), to="update")
    recalled = made.node("Mul", reset, new_h, to="recalled")
    new = made.node("Tanh", made.sum(new_x, recalled, "new_sum"), to="new")
    change = made.node("Sub", hidden, new, to="change")
    after = made.sum(new, made.node("Mul", update, change, to="kept"), "next_hidden")
    return after, made.parts(after)


def _lstm(made: _Nodes, values: str, before: str) -> tuple[str, str]:
    """c' = f c + i g, h' = o tanh(c') (Hochreiter and Schmidhuber 1997; Gers and others 2000 for f)."""
    hidden, cell = made.part(before, 0, "hidden"), made.part(before, 1, "cell")
    sums = made.sum(made.product(values, "ih"), made.product(hidden, "hh"), "sums")
    of_input, of_forget, of_cell, of_output = made.gates(sums, "input_sum", "forget_sum", "cell_sum", "output_sum")
    let_in = made.node("Sigmoid", of_input, to="input_gate")
    keep = made.node("Sigmoid", of_forget, to="forget_gate")
    offered = made.node("Tanh", of_cell, to="offered")
    show = made.node("Sigmoid", of_output, to="output_gate")
    kept = made.node("Mul", keep, cell, to="kept")
    cell_after = made.sum(kept, made.node("Mul", let_in, offered, to="let_in"), "next_cell")
    after = made.node("Mul", show, made.node("Tanh", cell_after, to="shown"), to="next_hidden")
    return after, made.parts(after, cell_after)


_STEPS: Mapping[str, Step] = {"rnn_tanh": _plain("Tanh"), "rnn_relu": _plain("Relu"), "gru": _gru, "lstm": _lstm}
