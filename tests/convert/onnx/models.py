"""Layers to export, and small ONNX models to import. What needs onnx imports it when it is called."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwright import GRU, LSTM, RNN, Cell, Recurrent, sigmoid, tanh


class Mine(Cell):
    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        z, n = self.linear("z n", x) + self.linear("z n", h)
        return h + sigmoid(z) * (tanh(n) - h)


class Normed(Cell):
    """Layer norm, and states of different sizes."""

    states = {"h": "hidden_size", "c": "hidden_size", "m": "small_size"}
    small_size = 2

    def step(self, x: Any, h: Any, c: Any, m: Any) -> Any:
        i, f, g, o = self.norm("i f g o", self.linear("i f g o", x) + self.linear("i f g o", h))
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(self.norm("c", c)) + self.linear("k", m, matrix="k")
        return h, c, 0.5 * m + self.linear("m", h, matrix="m", size="small_size")


class Blind(Cell):
    """Its step sees no input at all."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        return 0.5 * h + tanh(self.linear("a", h))


KINDS: dict[str, tuple[Any, str]] = {
    "rnn": (lambda **o: RNN(3, 5, **o), "RNN"),
    "rnn relu": (lambda **o: RNN(3, 1, nonlinearity="relu", **o), "RNN"),
    "rnn sigmoid": (lambda **o: RNN(1, 7, nonlinearity="sigmoid", **o), "RNN"),
    "rnn identity": (lambda **o: RNN(3, 5, nonlinearity="identity", **o), "RNN"),
    "rnn elu": (lambda **o: RNN(3, 5, nonlinearity="elu", **o), "RNN"),
    "rnn hard_sigmoid": (lambda **o: RNN(3, 5, nonlinearity="hard_sigmoid", **o), "RNN"),
    "rnn leaky_relu": (lambda **o: RNN(3, 5, nonlinearity="leaky_relu", **o), "RNN"),
    "rnn softplus": (lambda **o: RNN(3, 5, nonlinearity="softplus", **o), "RNN"),
    "rnn softsign": (lambda **o: RNN(3, 5, nonlinearity="softsign", **o), "RNN"),
    "rnn gelu": (lambda **o: RNN(3, 5, nonlinearity="gelu", **o), "Scan"),
    "lstm": (lambda **o: LSTM(3, 5, **o), "LSTM"),
    "lstm of one unit": (lambda **o: LSTM(1, 1, **o), "LSTM"),
    "lstm peephole": (lambda **o: LSTM(3, 5, peephole=True, **o), "LSTM"),
    "lstm coupled": (lambda **o: LSTM(3, 5, coupled=True, **o), "LSTM"),
    "lstm both": (lambda **o: LSTM(3, 5, peephole=True, coupled=True, **o), "LSTM"),
    "lstm projected": (lambda **o: LSTM(3, 5, proj_size=2, **o), "Scan"),
    "gru": (lambda **o: GRU(3, 63, **o), "GRU"),
    "gru before": (lambda **o: GRU(3, 5, reset_after=False, **o), "GRU"),
    "own": (lambda **o: Recurrent(Mine, 3, 5, **o), "Scan"),
    "normed": (lambda **o: Recurrent(Normed, 3, 5, **o), "Scan"),
    "blind": (lambda **o: Recurrent(Blind, 5, 5, **o), "Scan"),
}


GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def graph_of(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, int], weights: dict[str, Any], opset: int = 21
) -> Any:
    """A model: `inputs` are arrays that show types and shapes, `outputs` names with their ranks."""
    import onnx

    h = onnx.helper
    graph = h.make_graph(
        nodes,
        "test",
        [h.make_tensor_value_info(k, h.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()],
        [h.make_tensor_value_info(k, onnx.TensorProto.FLOAT, [None] * rank) for k, rank in outputs.items()],
        [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=10)


def recurrent(
    op: str,
    *,
    peephole: bool = False,
    lengths: Any = (6, 2, 4),
    fixed: bool = True,
    batch_first: bool = False,
    I: int = 3,
    H: int = 4,
    **attributes: Any,
) -> tuple[Any, dict[str, Any]]:
    """A model of one node with all its inputs, and values for them; `fixed`: the weights are in the model."""
    import onnx

    rng, G = np.random.default_rng(3), GATES[op]
    D = 2 if attributes.get("direction") == "bidirectional" else 1

    def random(*shape: int) -> Any:
        return rng.standard_normal(shape).astype("float32")

    weights = {"W": random(D, G * H, I), "R": random(D, G * H, H), "B": random(D, 2 * G * H)}
    given = {"x": random(6, 3, I), "lengths": np.array(lengths, "int32"), "h0": random(D, 3, H)}
    names = ["x", "W", "R", "B", "lengths", "h0"]
    if op == "LSTM":
        given["c0"] = random(D, 3, H)
        names.append("c0")
    if peephole:
        weights["P"] = random(D, 3 * H)
        names.append("P")
    if batch_first:
        given |= {k: v.swapaxes(0, 1).copy() for k, v in given.items() if k != "lengths"}
        attributes["layout"] = 1
    outputs = {"Y": 4, "Y_h": 3} | ({"Y_c": 3} if op == "LSTM" else {})
    node = onnx.helper.make_node(op, names, list(outputs), name="cell", hidden_size=H, **attributes)
    if not fixed:
        given, weights = given | weights, {}
    return graph_of([node], given, outputs, weights), given


def scan_node(**attributes: Any) -> Any:
    """h = tanh(0.5 h + a + b W), with h and -h collected; W is seen from the graph around."""
    import onnx

    h = onnx.helper
    body = h.make_graph(
        [
            h.make_node("Constant", [], ["half"], value_float=0.5),
            h.make_node("Mul", ["h", "half"], ["kept"]),
            h.make_node("MatMul", ["b", "W"], ["product"]),
            h.make_node("Sum", ["kept", "a", "product"], ["sum"]),
            h.make_node("Tanh", ["sum"], ["next"]),
            h.make_node("Identity", ["next"], ["given"]),
            h.make_node("Neg", ["next"], ["opposite"]),
        ],
        "step",
        [h.make_tensor_value_info(n, 1, [2, 3 + (n == "b")]) for n in ("h", "a", "b")],
        [h.make_tensor_value_info(n, 1, [2, 3]) for n in ("next", "given", "opposite")],
    )
    return h.make_node("Scan", ["h0", "a", "b"], ["last", "all", "negated"], name="loop", body=body,
                       num_scan_inputs=2, **attributes)  # fmt: skip


def session(model: Any, double: bool = False) -> Any:
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if double:  # its fusion of products with factors keeps the factors in float32
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def groups(state: Any, listed: bool) -> list[Tensor]:
    """The tensors of a layer's state in the order of the model's inputs and outputs."""
    entries = state if listed else (state,)
    return [t for entry in entries for t in (entry if isinstance(entry, tuple) else (entry,))]


def initial(layer: Recurrent, B: int) -> Any:
    D, definitions = layer.directions, layer.definitions
    rows = [(D, d) for d in definitions] if layer._listed else [(D * layer.num_layers, definitions[0])]
    made = [tuple(torch.randn(n, B, d.state_size(s)).to(layer_dtype(layer)) for s in d.states) for n, d in rows]
    entries = tuple(m if len(m) > 1 else m[0] for m in made)
    return entries if layer._listed else entries[0]


def layer_dtype(layer: Recurrent) -> torch.dtype:
    return next((p.dtype for p in layer.parameters()), torch.float32)
