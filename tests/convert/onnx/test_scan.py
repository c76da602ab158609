"""`Scan` nodes whose bodies the language of cells has words for: they come back as layers, compiled as one loop."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cellwright import GRU, LSTM, RNN, CellwrightError, GRUCell, InputError, MGUCell, Recurrent, SLSTMCell, use_target
from cellwright.convert import from_onnx, to_onnx
from cellwright.nn.built_in import CELLS
from tests.convert.onnx.models import KINDS, graph_of, groups, initial, scan_node, session
from tests.random_cells import random_cell

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")
pytest.importorskip("onnxruntime", reason="the models are run by onnxruntime; pip install onnxruntime")

TOLERANCE = 1e-5  # float32 on both sides
EXACT = 1e-10  # float64, of the largest: some states and gradients grow to thousands


def layer_of(name: str, **more: Any) -> Recurrent:
    """A layer of a cell by its class's name; none of its weights is zero."""
    size = 6 if name == "JordanCell" else 3  # which reads its own output
    layer = Recurrent(CELLS[name], size, 6, **more)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return layer


LAYERS: dict[str, Callable[[], Recurrent]] = {
    **{name: lambda name=name: layer_of(name, bidirectional=True) for name in CELLS},
    "deep": lambda: layer_of("MGUCell", num_layers=2, batch_first=True),
    "heads": lambda: Recurrent(SLSTMCell, 3, 6, heads=3),
    "states of other sizes": lambda: KINDS["normed"][0](),
    "no input": lambda: KINDS["blind"][0](),
    "one unit": lambda: Recurrent(MGUCell, 1, 1),
    "projected": lambda: LSTM(3, 5, proj_size=2),
    "zoneout": lambda: GRU(3, 4, zoneout=0.3).eval(),
    "layer norm": lambda: LSTM(3, 4, layer_norm=True),
    "clip": lambda: RNN(3, 4, state_clip=0.1),
    "starts": lambda: Recurrent([GRUCell(3, 4), MGUCell(4, 5)], learn_initial_state=True),
}


def fused(module: Any, model: Any) -> None:
    """Every Scan of the model is one layer, and none is left as a loop."""
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    kinds = [type(one).__name__ for one in module.layers.values()]
    assert kinds.count("Fused") == len(scans)
    assert scans
    assert all(isinstance(side, Recurrent) for one in module.layers.values() for side in one.layers)


def one_step(outputs: list[Tensor], given: list[Tensor], module: Any) -> list[Tensor]:
    """The gradients of what was given, after a step of SGD along those of the weights."""
    loss = sum(((k + 1) * torch.sin(3 * v)).sum() for k, v in enumerate(outputs))
    module.zero_grad()
    found = torch.autograd.grad(loss, [*given, *module.parameters()], allow_unused=True)
    with torch.no_grad():
        for p, g in zip(module.parameters(), found[len(given) :], strict=True):
            if g is not None:
                p -= 0.01 * g
    return [torch.zeros_like(v) if g is None else g for v, g in zip(given, found, strict=False)]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("masks", [(), ("lengths",), ("lengths", "reset")], ids=lambda m: "+".join(m) or "whole")
def test_round_trip(name: str, masks: tuple[str, ...], assert_close: Any) -> None:
    """The same numbers and gradients, also after a step along those of the weights; in float64, where all are Scans."""
    layer, T, B = LAYERS[name]().double(), 7, 3
    model = to_onnx(layer, **dict.fromkeys(masks, True))
    module = from_onnx(model)
    fused(module, model)
    lengths, reset = torch.tensor([T, 0, 3]), torch.rand(T, B) < 0.3
    shape = (B, T) if layer.batch_first else (T, B)
    asked = {"lengths": lengths, "reset": reset.t() if layer.batch_first else reset}
    more = {key: asked[key] for key in masks}
    with use_target("torch"):
        for when in ("before", "after a step"):
            x = torch.randn(*shape, layer.input_size, dtype=torch.float64, requires_grad=True)
            state = initial(layer, B)
            given = [x, *(t.requires_grad_() for t in groups(state, layer._listed))]
            output, last = layer(x, state, **more)
            want = [output, *groups(last, layer._listed)]
            found = module(x, *more.values(), *given[1:])
            for k, (g, w) in enumerate(zip(found, want, strict=True)):
                assert_close(f"output {k} {when}", g, w, EXACT * max(1.0, w.abs().max().item()))
            if name == "heads":
                break  # what was zero between heads is a weight like any other now
            for k, (g, w) in enumerate(zip(one_step(list(found), given, module), one_step(want, given, layer),
                                           strict=True)):  # fmt: skip
                assert_close(f"gradient {k} {when}", g, w, EXACT * max(1.0, w.abs().max().item()))


def test_compiled(assert_close: Any) -> None:
    """One kernel runs it, forward and back, and says what it is."""
    layer = layer_of("JANETCell")
    module, given = from_onnx(to_onnx(layer, lengths=True)), [torch.randn(9, 4, 3, requires_grad=True)]
    lengths, state = torch.tensor([9, 0, 3, 1]), initial(layer, 4)
    with use_target("cpu"):  # an error where the target cannot run it
        assert "define" in next(iter(module.layers.values())).layers[0].source("cpu")
        found = module(given[0], lengths, *groups(state, False))
        (got,) = one_step(list(found), given, module)
    with use_target("torch"):
        output, last = layer(given[0], state, lengths=lengths)
        want = [output, *groups(last, False)]
        for k, (g, w) in enumerate(zip(found, want, strict=True)):
            assert_close(f"output {k}", g, w, TOLERANCE)
        assert_close("gradient", got, one_step(want, given, layer)[0], 10 * TOLERANCE)


def test_integers(assert_close: Any) -> None:
    """Whole numbers look up rows of the weights; behind an embedding they do not."""
    layer, ids = layer_of("UGRNNCell"), torch.randint(0, 3, (5, 2))
    model = to_onnx(layer, integer=True, lengths=True)
    module, state, lengths = from_onnx(model), initial(layer, 2), torch.tensor([5, 2])
    fused(module, model)
    with use_target("torch"):
        for got, w in zip(module(ids, lengths, state), layer(ids, state, lengths=lengths), strict=True):
            assert_close("whole numbers", got, w, TOLERANCE)
        table = torch.randn(11, 3)
        model = to_onnx(layer, symbols=table)
        module, ids = from_onnx(model), torch.randint(0, 11, (5, 2))
        fused(module, model)
        for got, w in zip(module(ids, state), layer(table[ids], state), strict=True):
            assert_close("an embedding", got, w, TOLERANCE)
    assert [v.shape for v in module.weights.values()] == [(11, 3)]


@pytest.mark.parametrize("seed", range(0, 40, 5))
def test_random_cells(seed: int, assert_close: Any) -> None:
    layer = Recurrent([random_cell(seed)], bidirectional=True)
    model = to_onnx(layer)
    module, x, state = from_onnx(model), torch.randn(4, 3, layer.input_size), initial(layer, 3)
    fused(module, model)
    with use_target("torch"):
        output, last = layer(x, state)
        for got, w in zip(module(x, *groups(state, True)), [output, *groups(last, True)], strict=True):
            assert_close("output or state", got, w, TOLERANCE * max(1.0, w.abs().max().item()))


def lstm_body() -> Any:
    """An LSTM as TensorFlow writes it: one product of [x; h], split; one value of its own is collected."""
    h = onnx.helper
    info = [h.make_tensor_value_info(n, 1, ["batch", k]) for n, k in (("h", 4), ("c", 4), ("x", 3))]
    nodes = [
        h.make_node("Concat", ["x", "h"], ["xh"], axis=1),
        h.make_node("Gemm", ["xh", "kernel", "bias"], ["gates"]),
        h.make_node("Split", ["gates"], ["i", "g", "f", "o"], axis=1, num_outputs=4),
        h.make_node("Add", ["f", "one"], ["f1"]),
        h.make_node("Sigmoid", ["i"], ["si"]),
        h.make_node("HardSigmoid", ["f1"], ["sf"], alpha=0.3),
        h.make_node("Sigmoid", ["o"], ["so"]),
        h.make_node("Tanh", ["g"], ["tg"]),
        h.make_node("Mul", ["sf", "c"], ["kept"]),
        h.make_node("Mul", ["si", "tg"], ["new"]),
        h.make_node("Add", ["kept", "new"], ["c1"]),
        h.make_node("Clip", ["c1", "low", "high"], ["c2"]),
        h.make_node("Tanh", ["c2"], ["tc"]),
        h.make_node("Mul", ["so", "tc"], ["h1"]),
        h.make_node("Sub", ["h1", "c2"], ["apart"]),
        h.make_node("Identity", ["h1"], ["same"]),
    ]
    outputs = [h.make_empty_tensor_value_info(n) for n in ("h1", "c2", "apart", "same")]
    return h.make_graph(nodes, "step", info, outputs)


def written_by_others(**directions: Any) -> tuple[Any, dict[str, Any]]:
    """A model around `lstm_body`, and inputs for it."""
    rng = np.random.default_rng(4)
    given = {name: rng.standard_normal(shape).astype("float32") for name, shape in
             (("h0", (2, 4)), ("c0", (2, 4)), ("x", (6, 2, 3)))}  # fmt: skip
    weights = {"kernel": rng.standard_normal((7, 16)).astype("float32") * 0.5,
               "bias": rng.standard_normal(16).astype("float32"), "one": np.array(1, "float32"),
               "low": np.array(-0.8, "float32"), "high": np.array(0.8, "float32")}  # fmt: skip
    node = onnx.helper.make_node("Scan", ["h0", "c0", "x"], ["hn", "cn", "all", "every"], name="cell",
                                 body=lstm_body(), num_scan_inputs=1, **directions)  # fmt: skip
    return graph_of([node], given, {"hn": 2, "cn": 2, "all": 3, "every": 3}, weights), given


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_bodies_of_other_exporters(reverse: bool, assert_close: Any) -> None:
    ways: dict[str, Any] = {"scan_input_directions": [1], "scan_output_directions": [1, 1]} if reverse else {}
    model, given = written_by_others(**ways)
    module = from_onnx(model)
    fused(module, model)
    assert module.layers["cell"].layers[0].num_layers == 1
    with use_target("torch"):
        found = module(*map(torch.from_numpy, given.values()))
    for name, got, w in zip(module.outputs, found, session(model).run(None, given), strict=True):
        assert_close(name, got, torch.from_numpy(w), TOLERANCE)


def test_what_stays_a_loop(assert_close: Any) -> None:
    """Two inputs, or directions of their own: torch runs the body at every step, with the same numbers."""
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal(shape).astype("float32") for name, shape in
             (("a", (5, 2, 3)), ("b", (5, 2, 4)), ("h0", (2, 3)))}  # fmt: skip
    weights = {"W": rng.standard_normal((4, 3)).astype("float32")}
    two = graph_of([scan_node()], given, {"last": 2, "all": 3, "negated": 3}, weights)
    turned, more = written_by_others(scan_input_directions=[1])
    for model, values in ((two, given), (turned, more)):
        module = from_onnx(model)
        assert not len(module.layers)
        found = module(**{name: torch.from_numpy(v) for name, v in values.items()})
        for name, got, w in zip(module.outputs, found, session(model).run(None, values), strict=True):
            assert_close(name, got, torch.from_numpy(w), TOLERANCE)


def test_damaged_bodies_are_refused_or_read() -> None:
    """Bytes changed at random: never anything but an error of this package."""
    data = to_onnx(layer_of("MinLSTMCell"), lengths=True).SerializeToString()
    rng, refused = np.random.default_rng(5), 0
    for _ in range(150):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[at] = rng.integers(256)
        try:
            from_onnx(bytes(changed))
        except CellwrightError:
            refused += 1
    assert refused > 0


def body_of(nodes: list[Any], units: int = 3) -> Any:
    """A model of one Scan with these nodes from h and x to y."""
    h = onnx.helper
    info = [h.make_tensor_value_info(n, 1, ["batch", units]) for n in "hx"]
    body = h.make_graph(nodes, "step", info, [h.make_empty_tensor_value_info("y")])
    given = {"h0": np.ones((2, 3), "float32"), "x": np.ones((4, 2, 3), "float32")}
    scan = h.make_node("Scan", ["h0", "x"], ["last"], name="loop", body=body, num_scan_inputs=1)
    return graph_of([scan], given, {"last": 2}, {"huge": np.array(1e9, "float32")}), given


def test_absurd_bodies_stay_loops() -> None:
    """A power of 1e9, a chain of 3000 nodes, sizes that nothing has: none is followed, and none takes long."""
    h = onnx.helper
    power = [h.make_node("Pow", ["h", "huge"], ["p"]), h.make_node("Mul", ["p", "x"], ["y"])]
    chain = [h.make_node("Neg", [f"v{k}" if k else "h"], [f"v{k + 1}"]) for k in range(3000)]
    chain.append(h.make_node("Add", ["v3000", "x"], ["y"]))
    add = [h.make_node("Add", ["h", "x"], ["y"])]
    for nodes, units in ((power, 3), (chain, 3), (add, 2**40)):
        model, given = body_of(nodes, units)
        module = from_onnx(model)
        assert not len(module.layers)
        assert module(*map(torch.from_numpy, (given["h0"], given["x"]))).shape == (2, 3)
    module = from_onnx(body_of(add)[0])
    assert len(module.layers) == 1
    with pytest.raises(InputError, match=r"got the input 'x' of shape"):
        module(torch.ones(2, 3), torch.ones(4, 2, 4))
