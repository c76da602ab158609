"""docs/conventions.md: its tables are those of the code, its blocks that need a framework run where there is one."""

import re
from pathlib import Path

import pytest
import torch

from cellwright import GRU, LSTM, RNN, convert
from cellwright.convert.weights.blocks import Convention
from cellwright.convert.weights.flax import NNX
from cellwright.convert.weights.keras import KERAS
from cellwright.convert.weights.tf1 import TF1
from cellwright.convert.weights.torch_nn import TORCH

from .test_frameworks import load

PAGE = (Path(__file__).parents[3] / "docs" / "conventions.md").read_text(encoding="utf-8")
TABLES: dict[str, tuple[Convention, ...]] = {
    "torch.nn": TORCH,
    "Keras": KERAS,
    "TF1": TF1,
    "Flax nnx": tuple(c for c in NNX if "LSTMCell" not in c.cells),
}


def test_the_table_of_onnx() -> None:
    """Against the exporter: every number of a layer is another one, so that its place tells the piece."""
    onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")
    found = re.search(r"^\| ONNX \| RNN .*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    assert found
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[1].splitlines()]
    letters = {"weight_ih": "W", "weight_hh": "R", "bias_ih": "b", "bias_hh": "d"}
    layers = [(RNN(3, 2), "h"), (LSTM(3, 2, peephole=True), "ifgo"), (GRU(3, 2), "rzn")]
    for column, (layer, gates) in enumerate(layers, 1):
        pieces: dict[str, torch.Tensor] = {}
        for k, (name, weight) in enumerate(layer.named_parameters()):
            weight.data = torch.arange(1.0, weight.numel() + 1).reshape(weight.shape) + 100 * k
            name = name.removesuffix("_l0")
            named = [f"{letters[name]}_{gate}" for gate in gates] if name in letters else [name]
            pieces |= dict(zip(named, weight.detach().chunk(len(named)), strict=True))
        graph = convert.to_onnx(layer).graph
        (node,) = [node for node in graph.node if node.op_type in ("RNN", "LSTM", "GRU")]
        held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        places = {"W": 1, "R": 2, "B": 3, "P": 7}
        given = {name: node.input[k] for name, k in places.items() if k < len(node.input)}
        for array, *cells in rows:
            text = cells[column - 1]
            assert bool(text) == (array in given)
            if text:
                want = torch.cat([pieces[piece] for piece in text.replace(";", " ").split()])
                assert torch.equal(torch.tensor(held[given[array]]), want.unsqueeze(0)), (array, layer)


@pytest.mark.parametrize("framework", TABLES)
def test_the_tables_are_those_of_the_code(framework: str) -> None:
    found = re.search(rf"^\| {re.escape(framework)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    assert found
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[1].splitlines()]
    conventions = TABLES[framework]
    for column, convention in enumerate(conventions, 1):
        assert {row[0]: row[column] for row in rows if row[column]} == convention.arrays
    head = found[0].splitlines()[0].strip("|").split("|")[1:]
    assert [name.split(",")[0].strip() for name in head] == [c.cells[0] for c in conventions]


@pytest.mark.parametrize("framework", ["keras", "flax.linen"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_blocks_that_need_a_framework(framework: str) -> None:
    load(framework)
    (block,) = [
        b for b in re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S) if b.startswith(f"import {framework}\n")
    ]
    exec(block, {})
