"""`cellwright import --format onnx`: the recurrent nodes of a model as weights with the names of torch.nn."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import cellwright
from cellwright import GRU, LSTM, RNN, DataError, GRUCell, LSTMCell, OptionError, Recurrent, use_target
from cellwright.app.exchange import import_
from cellwright.convert import layer_from_onnx, to_onnx
from tests.convert.onnx.models import KINDS, recurrent

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")

LAYERS: dict[str, Any] = {
    "lstm": lambda: LSTM(3, 4, 2, bidirectional=True, peephole=True),
    "gru": lambda: GRU(3, 4, 2, reset_after=False, bias=False),
    "rnn": lambda: RNN(3, 4, nonlinearity="relu", bidirectional=True),
    "sizes": lambda: Recurrent([LSTMCell(3, 4), LSTMCell(4, 5)]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_file_for_the_layer(name: str, tmp_path: Path, assert_close: Any) -> None:
    """What the command says makes a layer that computes what the first one did."""
    layer, file, out = LAYERS[name](), tmp_path / "model.onnx", tmp_path / "out.safetensors"
    to_onnx(layer, file, lengths=True)
    said = import_(file, "onnx", out, None, None, {})
    twin = eval(said.split("layer = ")[1].splitlines()[0], {"cellwright": cellwright})
    twin.load_state_dict(load_file(out))
    x = torch.randn(5, 2, 3)
    with use_target("torch"):
        assert_close("output", twin(x)[0], layer(x)[0], 0.0)
    assert set(twin.state_dict()) == set(layer.state_dict())


def test_a_model_of_torch(tmp_path: Path) -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.output = nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return self.output(self.recurrent(x)[0])

    whole, file = Whole().eval(), tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(whole, (torch.randn(1, 5, 3),), str(file), dynamo=False, input_names=["x"],
                          dynamic_axes={"x": {0: "batch", 1: "time"}})  # fmt: skip
    with pytest.raises(OptionError, match=r"weights of other nodes \(.*output.bias \[2\].*from_onnx.*runs the whole"):
        layer_from_onnx(file)
    nodes = [node.name for node in onnx.load(file).graph.node if node.op_type == "LSTM"]
    layer = layer_from_onnx(file, "lstm", layers=nodes, batch_first=True)
    assert layer.batch_first
    for name, value in whole.recurrent.state_dict().items():
        assert torch.equal(layer.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: to_onnx(Recurrent([LSTMCell(3, 4), GRUCell(4, 5)])), {}, "different kinds: .*lstm.*gru"),
        (lambda: to_onnx(KINDS["own"][0]()), {}, "no RNN, LSTM or GRU node, but .*Scan"),
        (lambda: to_onnx(Recurrent([LSTMCell(3, 3), KINDS["own"][0]().definitions[0]])), {}, "of other nodes|a Scan"),
        (lambda: to_onnx(LSTM(3, 4)), {"layers": ["nobody"]}, r"got layers=\['nobody'\]; its recurrent nodes are out"),
        (lambda: to_onnx(LSTM(3, 4)), {"cell": "gru"}, "got cell='gru', but the nodes are of the kind lstm"),
        (lambda: to_onnx(LSTM(3, 4)), {"peephole": True}, "expected batch_first at most"),
        (lambda: to_onnx(LSTM(3, 4)), {"layers": [("a", "b")]}, "got a,b as a layer, expected the name of one node"),
        (lambda: recurrent("LSTM", clip=0.4)[0], {}, r"cell has attributes that our LSTM has no option for \(clip\)"),
        (lambda: recurrent("GRU", direction="reverse")[0], {}, "cell runs against time only"),
        (lambda: recurrent("GRU", fixed=False)[0], {}, "the weights of cell come with each call"),
    ],
)
def test_refusals(make: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        layer_from_onnx(make(), **options)


def test_something_between_two_layers() -> None:
    """A node between them that changes numbers."""
    model = to_onnx(LSTM(4, 4, 2))
    second = [node for node in model.graph.node if node.op_type == "LSTM"][1]
    at = list(model.graph.node).index(second)
    model.graph.node.insert(at, onnx.helper.make_node("Relu", [second.input[0]], ["changed"], name="between"))
    model.graph.node[at + 1].input[0] = "changed"
    with pytest.raises(OptionError, match=r"sees node 'between' \(Relu\), not output_l0 alone"):
        layer_from_onnx(model)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK")
    for name in ("x.npz", "nowhere.onnx"):
        with pytest.raises(DataError, match=r"is not an ONNX model|is no file"):
            import_(tmp_path / name, "onnx", tmp_path / "out.safetensors", None, None, {})
