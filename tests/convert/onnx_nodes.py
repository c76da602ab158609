"""Small ONNX models for the tests of the importer."""

from typing import Any

import numpy as np

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
