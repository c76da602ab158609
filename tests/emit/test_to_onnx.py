"""The spelling of every operation in ONNX, run by ONNX Runtime, against its meaning on numbers."""

import math
from typing import Any

import numpy as np
import pytest

from cellwright.emit.to_onnx import IR_VERSION, OPSET, TYPES, Builder, spell
from cellwright.lang.ops import ROWS, Op

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")
runtime = pytest.importorskip("onnxruntime", reason="the models are run by onnxruntime; pip install onnxruntime")

POINTS = [-1000.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 2.0, 3.0, 1000.0, math.inf, -math.inf, math.nan]


def run(b: Builder, result: str, given: dict[str, Any]) -> Any:
    """The value of `result` in ONNX Runtime."""
    h, kind = onnx.helper, TYPES[b.dtype.name]
    graph = h.make_graph(
        [h.make_node(n.op, n.inputs, n.outputs, **n.attributes) for n in b.nodes],
        "operation",
        [h.make_tensor_value_info(name, kind, [None] * v.ndim) for name, v in given.items()],
        [h.make_tensor_value_info(result, kind, [None] * next(iter(given.values())).ndim)],
        [onnx.numpy_helper.from_array(v, name) for name, v in b.constants.items()],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", [r for r in ROWS if r.kind == "elementwise"], ids=lambda op: op.name)
def test_operation_has_its_meaning(op: Op, dtype: str) -> None:
    if (op.name, dtype) == ("erf", "float64"):
        pytest.skip("ONNX Runtime has no erf in float64")
    rows = [[a] for a in POINTS] if op.arity == 1 else [[a, b] for a in POINTS for b in POINTS]
    rows = [[c, *r] for r in rows for c in (0.0, 1.0)] if op.arity == 3 else rows
    b = Builder(np.dtype(dtype))
    names = [b.name(f"a{k}") for k in range(op.arity)]
    columns = {name: np.array(c, dtype) for name, c in zip(names, zip(*rows, strict=True), strict=True)}
    got = run(b, spell(b, op.name, *names), columns)
    # float32: its own tanh and sigmoid, a few roundings
    exact, least = {"float32": (2e-6, 1e-7), "float64": (1e-12, 1e-14)}[dtype]
    for row, value in zip(rows, got.tolist(), strict=True):
        want = op.meaning(*row)
        same = (math.isnan(want) and math.isnan(value)) or math.isclose(want, value, rel_tol=exact, abs_tol=least)
        assert same, f"{op.name}{tuple(row)}: got {value}, want {want}"


def test_sum_and_spread() -> None:
    b = Builder(np.dtype("float32"))
    name, rows = b.name("a"), np.arange(12, dtype="float32").reshape(2, 2, 3)
    got = run(b, spell(b, "spread", spell(b, "sum", name), 4), {name: rows})
    assert np.array_equal(got, np.repeat(rows.sum(-1, keepdims=True), 4, -1))


def test_equal_constants_are_stored_once() -> None:
    b = Builder(np.dtype("float32"))
    assert b.constant(0.5) == b.constant(0.5) != b.constant(np.array([0.5], "float32"))
    assert len(b.constants) == 2
