"""What the importer refuses: quickly, in one sentence, with nothing executed."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellwright import LSTM, CellwrightError, DataError, InputError, use_target
from cellwright.convert import from_onnx, to_onnx
from tests.convert.onnx.models import graph_of, recurrent, scan_node

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    """Nothing takes a second, whatever the file says of its size."""
    begin = time.process_time()
    with use_target("torch"):
        yield
    assert time.process_time() - begin < 5


X = np.zeros((2, 3), "float32")


def single(op: str, inputs: str = "x", outputs: str = "y", opset: int = 21, **attributes: Any) -> Any:
    """A model of one node named "n"."""
    node = onnx.helper.make_node(op, inputs.split(), outputs.split(), name="n", **attributes)
    return graph_of([node], {"x": X}, dict.fromkeys(outputs.split(), 2), {}, opset)


def test_cut_short(tmp_path: Path) -> None:
    """Every beginning of a file is refused, and at once."""
    data = to_onnx(LSTM(2, 3, bidirectional=True), lengths=True).SerializeToString()
    for n in range(0, len(data), 7):
        with pytest.raises(DataError, match=r"not an ONNX model, or it is cut short|against the rules of ONNX|holds"):
            from_onnx(data[:n])
    file = tmp_path / "cut.onnx"
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.onnx is not an ONNX model, or it is cut short"):
        from_onnx(file)


def test_damaged() -> None:
    """Changed bytes give an error of this package or a model that runs; any other exception fails."""
    data = to_onnx(LSTM(2, 3), lengths=True).SerializeToString()
    given = [torch.zeros(2, 1, 2), torch.tensor([1]), torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)]
    random = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 3):
            damaged[place] = random.integers(0, 256)
        with contextlib.suppress(CellwrightError):
            from_onnx(bytes(damaged))(*given)


def test_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("import os; os.abort()\n" * 10)
    (tmp_path / "empty.onnx").touch()
    for name, want in (
        ("text.onnx", "is not an ONNX model, or it is cut short"),
        ("empty.onnx", "is not an ONNX model, or it is cut short"),
        ("none.onnx", "is no file; name an ONNX model"),
        (".", "is no file; name an ONNX model"),
        ("a\0b", "cannot be read|is no file"),
    ):
        with pytest.raises(DataError, match=want):
            from_onnx(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(DataError, match="is no file"):
        from_onnx(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match=r"got a int as a model, expected a path, bytes or an onnx\.ModelProto"):
        from_onnx(3)


def test_large_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(2**33)  # of nothing: it takes no room
    with pytest.raises(DataError, match=r"large\.onnx holds 8589934592 bytes, expected at most 2147483647"):
        from_onnx(tmp_path / "large.onnx")


def outside(model: Any, location: str, **more: int) -> bytes:
    """The model with the data of W in another file."""
    tensor = next(t for t in model.graph.initializer if t.name == "W")
    onnx.external_data_helper.set_external_data(tensor, location, **more)
    tensor.ClearField("raw_data")
    data: bytes = model.SerializeToString()
    return data


def test_external_data(tmp_path: Path) -> None:
    """From the folder of the model, and from nowhere else."""
    model, given = recurrent("GRU")
    values = {name: torch.from_numpy(v) for name, v in given.items()}
    want = from_onnx(model)(**values)
    (data,) = [t.raw_data for t in model.graph.initializer if t.name == "W"]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"12345678" + data)
    (tmp_path / "secret").write_bytes(data)
    (folder / "link").symlink_to(tmp_path / "secret")
    file, n = folder / "gru.onnx", len(data)

    def load(location: str, **more: int) -> Any:
        file.write_bytes(outside(onnx.ModelProto.FromString(model.SerializeToString()), location, **more))
        return from_onnx(file)

    for got, w in zip(load("weights.bin", offset=8, length=n)(**values), want, strict=True):
        assert torch.equal(got, w)
    for location in ("../secret", str(tmp_path / "secret"), "link", "x/../../secret"):
        with pytest.raises(DataError, match=r"weight 'W' has its data in the file .* outside of the model's folder"):
            load(location)
    file.write_bytes(file.read_bytes().replace(b"x/../../secret", b"x/../../secre\xff"))
    with pytest.raises(DataError, match=r"has its data in the file b'x.*\\xff', expected a short name in UTF-8"):
        from_onnx(file)
    with pytest.raises(DataError, match=r"has its data in the file 'x{80}', expected a short name"):
        load("x" * 5000)
    with pytest.raises(DataError, match=r"weights\.bin has \d+ bytes, expected 1099511627776 of them from 0 on"):
        load("weights.bin", offset=0, length=2**40)
    with pytest.raises(DataError, match=r"weight 'W' has the shape .* bytes, but the file holds 16"):
        load("weights.bin", offset=0, length=16)
    with pytest.raises(DataError, match=r"gone\.bin is no file"):
        load("gone.bin")
    with pytest.raises(DataError, match="expected a path, so that its folder is known"):
        from_onnx(outside(model, "weights.bin"))


@pytest.mark.parametrize("dims", [[2**40], [2**20, 2**20, 2**20], [-1, 4], [5], [0, 2**40], [1] * 40])
def test_absurd_shapes_of_weights(dims: list[int]) -> None:
    model, _ = recurrent("RNN")
    tensor = next(t for t in model.graph.initializer if t.name == "B")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    with pytest.raises(DataError, match=r"the weight 'B' has the shape \[.*(which no tensor can have|but the file)"):
        from_onnx(model)


def test_absurd_shapes_of_values() -> None:
    """What a node would make is refused when it is run, before the memory is taken."""
    h = onnx.helper
    huge = h.make_tensor("huge", onnx.TensorProto.INT64, [3], [2**20, 2**20, 2**20])
    for op, inputs in (("ConstantOfShape", ["huge"]), ("Expand", ["x", "huge"])):
        node = h.make_node(op, inputs, ["y"], name="n")
        model = graph_of([node], {"x": np.zeros((1, 1, 1), "float32")}, {"y": 3}, {})
        model.graph.initializer.append(huge)
        with pytest.raises(InputError, match=rf"node 'n' \({op}\): got the shape \[1048576, .* expected at most"):
            from_onnx(model)(torch.zeros(1, 1, 1))
    ends = {n: np.array(v, "int64") for n, v in (("a", 0), ("b", 2**62), ("c", 1))}
    model = graph_of([h.make_node("Range", ["a", "b", "c"], ["y"], name="n")], {"x": X}, {"y": 1}, ends)
    with pytest.raises(InputError, match=r"node 'n' \(Range\): got the shape"):
        from_onnx(model)(torch.zeros(2, 3))


def with_functions() -> Any:
    model = single("Relu")
    function = onnx.helper.make_function("here", "Own", ["a"], ["b"], [onnx.helper.make_node("Neg", ["a"], ["b"])],
                                         [onnx.helper.make_opsetid("", 21)])  # fmt: skip
    model.functions.append(function)
    return model


def with_domain() -> Any:
    model = single("Inverse", domain="com.microsoft")
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def with_type(kind: int) -> Any:
    model = single("Identity")
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def with_sequence() -> Any:
    model = single("Identity")
    kind = onnx.helper.make_sequence_type_proto(model.graph.input[0].type)
    model.graph.input[0].type.CopyFrom(kind)
    return model


def with_size(size: int) -> Any:
    model = single("Identity")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    return model


def with_sequences(count: int) -> Any:
    model = loop([node("Add", "h x", "h2")])
    next(a for a in model.graph.node[0].attribute if a.name == "num_scan_inputs").i = count
    return model


def with_number(value: float) -> Any:
    model, _ = recurrent("LSTM")
    tensor = next(t for t in model.graph.initializer if t.name == "W")
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[0, 3, 1] = value
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, "W"))
    return model


def constant(**attributes: Any) -> Any:
    return graph_of([node("Constant", "", "y", name="n", **attributes)], {"x": X}, {"y": 0}, {})


def with_extra(op: str, **options: Any) -> Any:
    return recurrent(op, **options)[0]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "operator": (lambda: single("Det"), r"node 'n' \(Det\): this operator is not supported; expected RNN, LSTM"),
    "domain": (with_domain, r"node 'n' \(com\.microsoft\.Inverse\): this operator is not supported"),
    "own operator": (with_functions, "defines the operator 'Own' itself"),
    "attribute": (
        lambda: single("Cast", to=1, round_mode="up", opset=25),
        r"node 'n' \(Cast\), attribute 'round_mode': it is not supported; expected to, saturate",
    ),
    "unknown attribute": (lambda: single("Relu", slope=0.1), "Unrecognized attribute: slope for operator Relu"),
    "string": (lambda: with_type(8), "the input 'x' has the type STRING, expected one of float32, uint8"),
    "float8": (lambda: with_type(17), "the input 'x' has the type FLOAT8E4M3FN"),
    "sequence": (with_sequence, "the input 'x' is no tensor"),
    "opset": (lambda: single("Relu", opset=99), "the model has opset 99, expected .* install a newer onnx, or export"),
    "old concat": (lambda: single("Concat", inputs="x x", opset=3), r"'n' \(Concat\): got the operator of opset 3"),
    "old dropout": (lambda: single("Dropout", opset=6), r"'n' \(Dropout\): got the operator of opset 6"),
    "old cast": (lambda: single("Cast", to="FLOAT", opset=5), r"'n' \(Cast\): got the operator of opset 5"),
    "cast": (lambda: single("Cast", to=8), r"'n' \(Cast\), attribute 'to' has the type STRING, expected one of"),
    "no constant": (lambda: constant(), r"node 'n' \(Constant\): got the attributes none, expected one of value, "),
    "two constants": (
        lambda: constant(value_int=1, value_float=2.0),
        r"node 'n' \(Constant\): got the attributes value_float and value_int, expected one of",
    ),
    "negative size": (lambda: with_size(-3), r"the input 'x' has the shape \[-3, 3\], which no tensor can have"),
    "sequences": (lambda: with_sequences(10**12), r"'loop' \(Scan\), attribute 'num_scan_inputs': got 1000000000000, "),
    "NaN": (lambda: with_number(np.nan), r"node 'cell' \(LSTM\): W holds NaN or infinite numbers, expected finite"),
    "infinity": (lambda: with_number(-np.inf), r"node 'cell' \(LSTM\): W holds NaN or infinite numbers"),
    "old softmax": (lambda: single("Softmax", opset=11), r"\(Softmax\): got the operator of opset 11"),
    "string constant": (
        lambda: graph_of([onnx.helper.make_node("Constant", [], ["y"], name="n", value_string="a")], {"x": X},
                         {"y": 0}, {}),
        r"node 'n' \(Constant\), attribute 'value_string': it is not supported",
    ),
    "undefined value": (lambda: single("Relu", inputs="nothing"), "against the rules of ONNX: .*nothing"),
    "direction": (lambda: with_extra("GRU", direction="up"), r"node 'cell' \(GRU\), attribute 'direction': got 'up'"),
    "activation": (
        lambda: with_extra("GRU", activations=["Sigmoid", "Gelu"]),
        r"node 'cell' \(GRU\), attribute 'activations': got 'Gelu', expected some of Relu, Tanh",
    ),
    "activations": (
        lambda: with_extra("LSTM", activations=["Sigmoid", "Tanh"]),
        r"\(LSTM\), attribute 'activations': got 2, expected 3 for each of 1 direction",
    ),
    "alpha": (
        lambda: with_extra("RNN", activations=["Tanh"], activation_alpha=[0.5]),
        r"attribute 'activation_alpha': got more values than the activations take",
    ),
    "no alpha": (
        lambda: with_extra("RNN", activations=["Affine"], activation_alpha=[0.5]),
        r"attribute 'activation_beta': it has no value for Affine, which needs one",
    ),
    "clip": (lambda: with_extra("RNN", clip=-1.0), r"\(RNN\), attribute 'clip': got -1.0, expected a number above 0"),
    "coupling": (lambda: with_extra("LSTM", input_forget=2), r"attribute 'input_forget': got 2, expected 0 or 1"),
    "directions": (
        lambda: with_extra("RNN", scan_input_directions=[1]), "Unrecognized attribute: scan_input_directions"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        from_onnx(make())


def test_weights_that_do_not_fit() -> None:
    for attribute, value, message in (
        ("hidden_size", 5, r"node 'cell' \(LSTM\): attribute 'hidden_size' is 5, but R has the shape \[1, 16, 4\]"),
        ("direction", "bidirectional", r"node 'cell' \(LSTM\): W has the shape \[1, 16, 3\], expected \[2, 16, 3\]"),
    ):
        model, _ = recurrent("LSTM")
        kept = [a for a in model.graph.node[0].attribute if a.name != attribute]
        del model.graph.node[0].attribute[:]
        model.graph.node[0].attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])
        with pytest.raises(DataError, match=message):
            from_onnx(model)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"scan_input_axes": [0]}, r"node 'loop' \(Scan\), attribute 'scan_input_axes': got \[0\], expected 2"),
        (
            {"scan_output_directions": [0, 7]},
            r"attribute 'scan_output_directions': got \[0, 7\], expected 2",
        ),
    ],
)
def test_loops_that_do_not_fit(attributes: dict[str, Any], message: str) -> None:
    x = np.zeros((5, 2, 3), "float32")
    model = graph_of([scan_node(**attributes)], {"a": x, "b": x, "h0": X}, {"last": 2}, {"W": X})
    with pytest.raises(DataError, match=message):
        from_onnx(model)


def loop(body: list[Any], before: list[Any] | None = None, units: int = 3) -> Any:
    """A model of a Scan h2 = body(h, x) over X, behind other nodes."""
    h = onnx.helper

    def info(name: str, rank: int) -> Any:
        return h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * (rank - 1) + [units])

    inner = h.make_graph(body, "step", [info("h", 2), info("x", 2)], [info("h2", 2)])
    scan = h.make_node("Scan", ["h0", "X"], ["last"], name="loop", body=inner, num_scan_inputs=1)
    graph = h.make_graph([*(before or []), scan], "g", [info("h0", 2), info("X", 3)], [info("last", 2)])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)


def chain(op: str, first: str, steps: int, **attributes: Any) -> list[Any]:
    """c0 = op(first, first), c1 = op(c0, c0), ..."""
    names = [first, *(f"c{k}" for k in range(steps))]
    return [onnx.helper.make_node(op, [a, a], [b], **attributes) for a, b in pairwise(names)]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(op, inputs.split(), outputs.split(), **attributes)


LARGE: dict[str, Callable[[], Any]] = {
    "doubled units": lambda: loop(
        [*chain("Concat", "x", 45, axis=1), node("Constant", "", "one", value_ints=[1]),
         node("ReduceMean", "c44 one", "mean"), node("Add", "h mean", "h2")]
    ),
    "doubled units before": lambda: loop([node("Add", "h x", "h2")], chain("Concat", "X", 45, axis=2)),
    "doubled values": lambda: loop([*chain("Add", "x", 60), node("Add", "h c59", "h2")]),
    "many parts": lambda: loop(
        [node("Split", "x", "a", axis=1, num_outputs=10**12), node("Add", "h a", "h2")], units=10**12
    ),
    "many parts before": lambda: loop(
        [node("Add", "h x", "h2")], [node("Split", "X", "a", axis=2, num_outputs=10**12)], 10**12
    ),
    "a wide state": lambda: loop([node("Add", "h x", "h2")], units=10**12),
    "a long step": lambda: loop([*chain("Add", "x", 3000), node("Add", "h c2999", "h2")]),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_small_files_that_mean_a_lot(name: str) -> None:
    """What they would compute is not computed for reading them."""
    from_onnx(LARGE[name]())


def copies(of: Any, count: int) -> Any:
    """A model with its first node many times over."""
    first = of.graph.node[-1]
    for k in range(count):
        another = of.graph.node.add()
        another.CopyFrom(first)
        for place in range(len(another.output)):
            another.output[place] = f"{k} {place}"
    return of


def many_sums() -> Any:
    values = [onnx.numpy_helper.from_array(np.array(k, "float32"), f"w{k}") for k in range(3000)]
    adds = [node("Add", f"{'x' if not k else f's{k - 1}'} w{k}", f"s{k}") for k in range(3000)]
    model = graph_of(adds, {"x": X}, {"s2999": 2}, {})
    model.graph.initializer.extend(values)
    return model


MANY: dict[str, Callable[[], Any]] = {
    "nodes": lambda: copies(single("Relu"), 10_000),
    "weights": many_sums,
    # A loop is seen after all that stands before it, and read as a layer only while that is not too much.
    "loops": lambda: copies(loop([node("Softmax", "x", "s"), node("Add", "h s", "h2")]), 500),
    "loops behind others": lambda: copies(loop([node("Add", "h x", "h2")], chain("Add", "X", 2000)), 60),
}


@pytest.mark.parametrize("name", MANY)
def test_many_nodes(name: str) -> None:
    from_onnx(MANY[name]())


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="the model has more than 100,000 nodes and weights"):
        from_onnx(copies(single("Relu"), 100_000))
    monkeypatch.setattr("cellwright.convert.onnx.model._LAYERS", 10)
    with pytest.raises(DataError, match=r"node 'cell' \(RNN\): it is one of more than 10 recurrent nodes"):
        from_onnx(copies(recurrent("RNN")[0], 10))


def test_shared_weights_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that share one large weight in the file would each have their own here."""
    monkeypatch.setattr("cellwright.convert.onnx.model.LIMIT", 1000)
    model, _ = recurrent("RNN")
    from_onnx(model)
    with pytest.raises(DataError, match=r"\(RNN\): with it, the recurrent nodes have 1,\d+ bytes of weights"):
        from_onnx(copies(model, 20))


def test_messages_are_short_lines() -> None:
    """Whatever stands in the file."""

    def custom(op: str, **attributes: Any) -> Any:
        model = single(op, domain="a\nb", **attributes)
        model.opset_import.append(onnx.helper.make_opsetid("a\nb", 1))
        return model

    for make, message in (
        (lambda: custom("Det\x1b[31m\n" * 20), r"node 'n' \(a b.Det\?\[31m Det.*\.\.\.\): this operator"),
        (lambda: custom("Det" * 10**6), r"a name of 3,000,000 characters, 'DetDet.*expected 1,000"),
        (lambda: with_extra("GRU", direction="up\n" * 10**6), "attribute 'direction': got 'up up .*expected forward"),
        (lambda: with_extra("RNN", activations=["Tan\n" * 10**6]), "attribute 'activations': got 'Tan Tan .*expected"),
        (lambda: single("Relu", slope=0.1), r"attribute: slope for operator Relu .*Name: n OpType: Relu"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            from_onnx(make())
        assert len(str(caught.value)) < 1200 and str(caught.value).isprintable()


def test_wrong_calls() -> None:
    model, given = recurrent("GRU")
    module, values = from_onnx(model), {name: torch.from_numpy(v) for name, v in given.items()}
    for change, message in (
        ({"x": torch.zeros(6, 3, 4)}, r"got the input 'x' of shape \[6, 3, 4\], expected \[6, 3, 3\]"),
        ({"x": torch.zeros(6, 3, 3, dtype=torch.int64)}, "got the input 'x' of torch.int64, expected torch.float32"),
        ({"x": given["x"]}, "got ndarray for the input 'x', expected a tensor"),
        ({"x": torch.zeros(6, 3, 3, dtype=torch.float64)}, r"node 'cell' \(GRU\): got an input of dtype torch.float64"),
        ({"lengths": torch.tensor([7, 1, 1], dtype=torch.int32)}, r"\(GRU\): got the length 7 for sequence 0"),
        ({"y": torch.zeros(1)}, "got the input 'y', expected each of x, lengths, h0 once"),
    ):
        with pytest.raises(InputError, match=message):
            module(**values | change)
    with pytest.raises(InputError, match="got NoneType for the input 'h0', expected a tensor"):
        module(values["x"], values["lengths"])
    with pytest.raises(InputError, match="got 4 inputs, expected 3: x, lengths, h0"):
        module(*values.values(), values["x"])
    rows = single("MatMul", inputs="x x")
    with pytest.raises(InputError, match=r"node 'n' \(MatMul\): .*shapes cannot be multiplied"):
        from_onnx(rows)(torch.zeros(2, 3))
