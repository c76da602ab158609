"""What the importer refuses: quickly, in one sentence, with nothing executed."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
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
