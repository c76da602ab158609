"""Imported models against ONNX Runtime, torch, and the layers that they were exported from."""

import copy
import io
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cellwright import GRU, LSTM, RNN, Recurrent, use_target
from cellwright.convert import from_onnx, to_onnx
from tests.convert.onnx.models import KINDS, graph_of, groups, initial, recurrent, scan_node, session

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")
pytest.importorskip("onnxruntime", reason="the models are run by onnxruntime; pip install onnxruntime")

TOLERANCE = 1e-5  # float32 on both sides, with other orders of summation and other approximations of tanh


@pytest.fixture(autouse=True)
def _reference() -> Any:
    with use_target("torch"):  # small nets: compiling would take longer than running
        yield


def against_runtime(model: Any, given: dict[str, Any], assert_close: Any) -> Any:
    """Both run the model; the importer's module is returned."""
    module = from_onnx(model.SerializeToString())
    want = session(model).run(None, given)
    with torch.no_grad():
        got = module(**{name: torch.from_numpy(v) for name, v in given.items()})
    for name, g, w in zip(module.outputs, got if isinstance(got, tuple) else (got,), want, strict=True):
        assert_close(name, g, torch.from_numpy(w), TOLERANCE)
    return module


DIRECTIONS = ["forward", "reverse", "bidirectional"]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("RNN", {}),
        ("RNN", {"clip": 0.4}),
        ("LSTM", {}),
        ("LSTM", {"peephole": True}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"peephole": True, "input_forget": 1, "clip": 0.4}),
        ("GRU", {}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"clip": 0.4}),
        ("GRU", {"linear_before_reset": 1, "clip": 0.4}),
    ],
    ids=str,
)
def test_attributes(op: str, options: dict[str, Any], direction: str, assert_close: Any) -> None:
    module = against_runtime(*recurrent(op, direction=direction, **options), assert_close)
    (layer,) = module.layers.values()
    assert len(layer.layers) == 1 + (direction == "bidirectional")
    assert all(isinstance(side, Recurrent) for side in layer.layers)


def test_attributes_on_the_default_target(assert_close: Any) -> None:
    with use_target("cpu"):
        against_runtime(*recurrent("LSTM", peephole=True, input_forget=1, clip=0.4), assert_close)


# With alpha and beta where a function takes them; without them where ONNX Runtime has the defaults of ONNX.
ACTIVATIONS = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "Softsign": (), "Softplus": (), "Elu": (0.3,), "LeakyRelu": (0.3,),
    "ThresholdedRelu": (0.3,), "Affine": (0.3, 0.7), "ScaledTanh": (0.3, 0.7), "HardSigmoid": (0.3, 0.7),
}  # fmt: skip


def numbers(*names: str) -> dict[str, Any]:
    """The attributes with alpha and beta of some activations, in order."""
    alpha = [ACTIVATIONS[n][0] for n in names if len(ACTIVATIONS[n]) > 0]
    beta = [ACTIVATIONS[n][1] for n in names if len(ACTIVATIONS[n]) > 1]
    return ({"activation_alpha": alpha} if alpha else {}) | ({"activation_beta": beta} if beta else {})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, assert_close: Any) -> None:
    against_runtime(*recurrent("RNN", activations=[name], clip=0.5, **numbers(name)), assert_close)
    gates = ["HardSigmoid", name]
    against_runtime(*recurrent("GRU", activations=gates, clip=2.0, **numbers(*gates)), assert_close)
    gates = ["Sigmoid", name, "HardSigmoid", "HardSigmoid", "Tanh", name]
    more = numbers(*gates)
    against_runtime(*recurrent("LSTM", activations=gates, direction="bidirectional", clip=1.0, **more), assert_close)


@pytest.mark.parametrize("name", ["Elu", "LeakyRelu", "HardSigmoid", "tanh"])
def test_activations_by_default(name: str, assert_close: Any) -> None:
    against_runtime(*recurrent("GRU", activations=["Sigmoid", name], clip=1.0), assert_close)


def test_a_threshold_of_one_by_default() -> None:
    """ONNX's ThresholdedRelu; ONNX Runtime takes 0 here."""
    model, given = recurrent("RNN", activations=["ThresholdedRelu"], lengths=(6, 6, 6))
    Y = from_onnx(model)(**{k: torch.from_numpy(v) for k, v in given.items()})[0]
    assert ((Y == 0) | (Y >= 1)).all()
    assert (Y == 0).any()
    assert (Y > 1).any()


@pytest.mark.parametrize("op", ["RNN", "LSTM", "GRU"])
def test_layouts_and_weights_as_inputs(op: str, assert_close: Any) -> None:
    """The same numbers batch-first, and with weights that come with the call."""

    def run(**options: Any) -> Any:
        model, given = recurrent(op, direction="bidirectional", lengths=(6, 0, 4), peephole=op == "LSTM", **options)
        return from_onnx(model)(**{name: torch.from_numpy(v) for name, v in given.items()})

    want = run()
    for got, w in zip(run(fixed=False), want, strict=True):
        assert torch.equal(got, w)
    for k, (got, w) in enumerate(zip(run(batch_first=True), want, strict=True)):
        assert_close(f"output {k}", got, w.permute(2, 0, 1, 3) if k == 0 else w.transpose(0, 1), 0.0)


def test_a_sequence_without_a_step_keeps_its_state() -> None:
    model, given = recurrent("LSTM", lengths=(0, 6, 0))
    Y, h, c = from_onnx(model)(**{name: torch.from_numpy(v) for name, v in given.items()})
    assert not Y[:, 0, [0, 2]].any()
    for name, after in (("h0", h), ("c0", c)):
        assert torch.equal(after[0, [0, 2]], torch.from_numpy(given[name])[0, [0, 2]])


@pytest.mark.parametrize("name", KINDS)
def test_exported_layers_come_back(name: str, assert_close: Any) -> None:
    layer = KINDS[name][0](num_layers=2, bidirectional=True, batch_first=True)
    module = from_onnx(to_onnx(layer, lengths=True))
    x, lengths, state = torch.randn(3, 7, layer.input_size), torch.tensor([7, 0, 3]), initial(layer, 3)
    output, last = layer(x, state, lengths=lengths)
    for k, (got, w) in enumerate(zip(module(x, lengths, *groups(state, False)), [output, *groups(last, False)],
                                     strict=True)):  # fmt: skip
        assert_close(f"output {k}", got, w, TOLERANCE)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_models_of_torch(kind: Any, assert_close: Any) -> None:
    """An embedding, two layers in both directions, an output layer: what torch writes, at another size."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.recurrent = kind(6, 5, num_layers=2, bidirectional=True, batch_first=True)
            self.output = nn.Linear(10, 7)

        def forward(self, ids: torch.Tensor) -> Any:
            y, last = self.recurrent(self.embed(ids))
            return torch.log_softmax(self.output(torch.relu(y)), -1), last

    tagger, file = Tagger().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its age, and that the batch must be the same: for zero states it need not
        torch.onnx.export(
            tagger,
            (torch.randint(0, 11, (3, 7)),),
            file,
            dynamo=False,
            input_names=["ids"],
            dynamic_axes={"ids": {0: "batch", 1: "time"}},
            opset_version=17,
        )
    module, ids = from_onnx(file.getvalue()), torch.randint(0, 11, (4, 9))
    assert len(module.layers) == 2
    want, last = tagger(ids)
    for k, (got, w) in enumerate(zip(module(ids), [want, *groups(last, False)], strict=True)):
        assert_close(f"output {k}", got, w, TOLERANCE)


def test_packed_sequences_of_torch(assert_close: Any) -> None:
    """Sequences that torch sorts by their lengths and back, in both directions, at another size."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.GRU(4, 5, bidirectional=True)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            y, last = self.recurrent(packed)
            return nn.utils.rnn.pad_packed_sequence(y)[0], last

    packed, file = Packed().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            packed,
            (torch.randn(7, 3, 4), torch.tensor([7, 2, 5])),
            file,
            dynamo=False,
            input_names=["x", "lengths"],
            dynamic_axes={"x": {0: "time", 1: "batch"}, "lengths": {0: "batch"}},
            opset_version=17,
        )
    x, lengths = torch.randn(9, 6, 4), torch.tensor([4, 1, 9, 3, 4, 9])
    for k, (got, w) in enumerate(zip(from_onnx(file.getvalue())(x, lengths), packed(x, lengths), strict=True)):
        assert_close(f"output {k}", got, w, TOLERANCE)


@pytest.mark.parametrize(("ours", "theirs"), [(LSTM, nn.LSTM), (GRU, nn.GRU), (RNN, nn.RNN)])
def test_imported_layers_can_be_trained(ours: Any, theirs: Any, assert_close: Any) -> None:
    """The gradients of the imported weights are torch's, in float64; the imported layer loads into torch."""
    layer, torchs = ours(3, 5), theirs(3, 5, dtype=torch.float64)
    module = from_onnx(to_onnx(layer)).double()
    (node,) = module.layers.values()
    (side,) = node.layers
    assert [p.shape for p in module.parameters()] == [p.shape for p in torchs.parameters()]
    torchs.load_state_dict(side.state_dict())
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    state = [torch.randn(1, 2, 5, dtype=torch.float64) for _ in layer.definitions[0].states]
    module(x, *state)[0].square().sum().backward()
    torchs(x, tuple(state) if len(state) > 1 else state[0])[0].square().sum().backward()
    for name, p in torchs.named_parameters():
        assert_close(name, getattr(side, name).grad, p.grad, 1e-12)


@pytest.mark.parametrize(
    ("attributes", "shapes"),
    [
        ({}, ((5, 2, 3), (5, 2, 4))),
        ({"scan_input_directions": [1, 0], "scan_output_directions": [0, 1]}, ((5, 2, 3), (5, 2, 4))),
        ({"scan_input_axes": [1, -1], "scan_output_axes": [2, -2]}, ((2, 5, 3), (2, 4, 5))),
        ({"scan_input_directions": [1, 1], "scan_output_directions": [1, 1]}, ((1, 2, 3), (1, 2, 4))),
    ],
    ids=["plain", "directions", "axes", "one step"],
)
def test_scan(attributes: dict[str, Any], shapes: Any, assert_close: Any) -> None:
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal(s).astype("float32") for n, s in zip(("a", "b"), shapes, strict=True)}
    given["h0"] = rng.standard_normal((2, 3)).astype("float32")
    weights = {"W": rng.standard_normal((4, 3)).astype("float32")}
    model = graph_of([scan_node(**attributes)], given, {"last": 2, "all": 3, "negated": 3}, weights)
    module = against_runtime(model, given, assert_close)
    assert [p.shape for p in module.parameters()] == [(4, 3)]


def test_the_first_scan(assert_close: Any) -> None:
    """Of opset 8: a batch before everything else, lengths, and one direction per sequence; against ONNX Runtime."""
    h, rng = onnx.helper, np.random.default_rng(0)
    names = [h.make_tensor_value_info(n, 1, [3]) for n in ("s", "a", "b", "next", "out")]
    nodes = [h.make_node("Sum", ["s", "a", "b"], ["sum"]), h.make_node("Tanh", ["sum"], ["next"]),
             h.make_node("Identity", ["next"], ["out"])]  # fmt: skip
    body = h.make_graph(nodes, "step", names[:3], names[3:])
    for lengths in ([4, 2], [1, 4]):
        given = {"n": np.array(lengths), "s0": rng.standard_normal((2, 3)).astype("float32")}
        given |= {n: rng.standard_normal((2, 4, 3)).astype("float32") for n in ("x", "y")}
        node = h.make_node("Scan", list(given), ["last", "all"], body=body, num_scan_inputs=2, directions=[0, 1])
        against_runtime(graph_of([node], given, {"last": 2, "all": 3}, {}, opset=8), given, assert_close)


def test_names_of_the_graph_around(assert_close: Any) -> None:
    """A body's input W is not the W of the graph around, and a weight may be named like what the module keeps."""
    h, rng = onnx.helper, np.random.default_rng(0)
    rnn = h.make_node("RNN", ["X", "W", "R"], ["", "y"], hidden_size=2)
    shapes = {"h": [1, 1, 2], "W": [1, 2, 3], "next": [1, 1, 2]}
    info = [h.make_tensor_value_info(n, 1, shape) for n, shape in shapes.items()]
    body = h.make_graph([rnn, h.make_node("Add", ["h", "y"], ["next"])], "step", info[:2], info[2:])
    nodes = [
        h.make_node("Scan", ["h0", "w"], ["last"], body=body, num_scan_inputs=1),
        h.make_node("MatMul", ["last", "W"], ["product"]),
        h.make_node("Mul", ["product", "ten"], ["scaled"]),
        h.make_node("Add", ["scaled", "constant 0"], ["y"]),
    ]
    given = {"w": rng.standard_normal((4, 1, 2, 3)).astype("float32"), "h0": np.zeros((1, 1, 2), "float32")}
    weights = {"W": rng.standard_normal((1, 2, 3)).astype("float32"), "R": np.zeros((1, 2, 2), "float32")}
    weights |= {"X": rng.standard_normal((1, 1, 3)).astype("float32"), "ten": np.array(10, "float32")}
    weights["constant 0"] = rng.standard_normal((1, 1, 3)).astype("float32")
    got = from_onnx(graph_of(nodes, given, {"y": 3}, weights))(*map(torch.from_numpy, given.values()))
    last = np.tanh(weights["X"] @ given["w"][:, 0].swapaxes(1, 2)).sum(0, keepdims=True)
    assert_close("y", got, torch.from_numpy(last @ weights["W"] * 10 + weights["constant 0"]), TOLERANCE)


def test_scan_over_no_step() -> None:
    given = {"a": np.zeros((0, 2, 3), "float32"), "b": np.zeros((0, 2, 4), "float32"), "h0": np.ones((2, 3), "float32")}
    model = graph_of([scan_node()], given, {"last": 2, "all": 3, "negated": 3}, {"W": np.ones((4, 3), "float32")})
    last, every, _ = from_onnx(model)(**{k: torch.from_numpy(v) for k, v in given.items()})
    assert torch.equal(last, torch.ones(2, 3))
    assert every.shape == (0, 2, 3)


def test_the_module_is_a_module(assert_close: Any) -> None:
    """Inputs by place or by name; a state_dict; a copy in float64."""
    module = from_onnx(to_onnx(KINDS["normed"][0](), lengths=True))
    assert module.inputs == ("x", "lengths", "h0", "c0", "m0")
    assert module.outputs == ("output", "hn", "cn", "mn")
    given = [torch.randn(4, 2, 3), torch.tensor([4, 1]), *(torch.randn(1, 2, n) for n in (5, 5, 2))]
    want = module(*given)
    for got, w in zip(module(given[0], **dict(zip(module.inputs[1:], given[1:], strict=True))), want, strict=True):
        assert torch.equal(got, w)
    before = module(*given)[0]
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(*given)[0], before)
        for p in twin.parameters():
            p.data.zero_()  # its own, not those of the first
        assert not torch.equal(twin(*given)[0], before)
    assert torch.equal(module(*given)[0], before)
    other = from_onnx(to_onnx(KINDS["normed"][0](), lengths=True))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(*given)[0], want[0])


def test_an_output_without_a_shape() -> None:
    """As ONNX Runtime takes it."""
    model, given = recurrent("GRU")
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    module = from_onnx(model)
    want = session(model).run(None, given)
    for got, value in zip(module(*map(torch.from_numpy, given.values())), want, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), value, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 0.0])
def test_a_threshold_is_not_above_itself(alpha: float) -> None:
    from cellwright.convert.onnx.equations import OnnxRNN

    layer = Recurrent(OnnxRNN, 1, 1, f=f"ThresholdedRelu {alpha}")
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            weight.fill_(float(name == "weight_ih_l0"))
        output = layer(torch.tensor([[[alpha]], [[alpha + 0.25]]]))[0].flatten()
    assert output.tolist() == [0.0, alpha + 0.25]
