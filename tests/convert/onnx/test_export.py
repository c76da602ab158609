"""Exported layers, run by ONNX Runtime, against the layers themselves."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cellwright import (
    GRU,
    LSTM,
    RNN,
    Cell,
    DataError,
    GRUCell,
    LSTMCell,
    OptionError,
    Recurrent,
    SLSTMCell,
    cells,
    sigmoid,
    tanh,
    use_target,
)
from cellwright.convert import from_onnx, to_onnx
from cellwright.tasks.charlm.model import CharModel
from tests.convert.onnx.models import KINDS, Mine, groups, initial, layer_dtype, session
from tests.random_cells import random_cell

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")
pytest.importorskip("onnxruntime", reason="the models are run by onnxruntime; pip install onnxruntime")

# The two sum in different orders and have their own tanh and exp: a few roundings of values around 1, as measured.
TOLERANCE = 1e-5


def operators(model: Any) -> set[str]:
    return {node.op_type for node in model.graph.node} & {"RNN", "LSTM", "GRU", "Scan"}


def compare(
    layer: Recurrent,
    assert_close: Any,
    *,
    lengths: bool = False,
    reset: bool = False,
    integer: bool = False,
    tolerance: float = TOLERANCE,
    sizes: Any = ((6, 4), (1, 1), (11, 5)),
) -> Any:
    """One model, at several sizes that the export has not seen."""
    model = to_onnx(layer, lengths=lengths, reset=reset, integer=integer)
    onnx.checker.check_model(model, full_check=True)
    dtype = layer_dtype(layer)
    run = session(model, dtype == torch.float64)
    for T, B in sizes:
        x = torch.randint(0, layer.input_size, (T, B)) if integer else torch.randn(T, B, layer.input_size).to(dtype)
        valid = torch.tensor([0, T, (T + 1) // 2, 1, T][:B])
        starts = torch.rand(T, B) < 0.4
        if lengths:  # whatever stands in the padding
            padding = torch.arange(T).unsqueeze(1) >= valid
            x[padding] = -7 if integer else torch.nan
        if layer.batch_first:
            x, starts = x.transpose(0, 1).contiguous(), starts.t().contiguous()
        state = initial(layer, B)
        more: dict[str, Any] = ({"lengths": valid} if lengths else {}) | ({"reset": starts} if reset else {})
        with torch.no_grad(), use_target("torch"):
            output, last = layer(x, state, **more)
        names = [i.name for i in run.get_inputs()]
        given = [x, *more.values(), *groups(state, layer._listed)]
        found = run.run(None, {name: t.numpy() for name, t in zip(names, given, strict=True)})
        outputs = output if isinstance(output, tuple) else (output,)
        want = [*outputs, *groups(last, layer._listed)]
        assert len(found) == len(want)
        for name, got, w in zip([o.name for o in run.get_outputs()], found, want, strict=True):
            scale = max(1.0, w.abs().max().item())  # states of some cells grow
            assert_close(f"{name} at T={T}, B={B}", torch.from_numpy(got), w, tolerance * scale)
    return model


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize(
    "form",
    [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True, "bias": "input"}, {"bias": False}],
    ids=["plain", "deep", "batch first", "no bias"],
)
def test_models_compute_what_the_layers_do(name: str, lengths: bool, form: dict[str, Any], assert_close: Any) -> None:
    make, operator = KINDS[name]
    model = compare(make(**form), assert_close, lengths=lengths)
    assert operators(model) == {operator}


@pytest.mark.parametrize("name", ["rnn", "lstm peephole", "gru", "own", "normed"])
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
def test_resets(name: str, lengths: bool, assert_close: Any) -> None:
    layer = KINDS[name][0](bidirectional=True, batch_first=True)
    assert operators(compare(layer, assert_close, lengths=lengths, reset=True)) == {"Scan"}


@pytest.mark.parametrize("name", ["rnn", "lstm", "own", "normed"])
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
def test_integers(name: str, lengths: bool, assert_close: Any) -> None:
    model = compare(KINDS[name][0](bidirectional=True), assert_close, lengths=lengths, integer=True)
    if name in ("own", "normed"):
        assert not {n.op_type for n in model.graph.node} & {"Equal"}, "a look-up of rows was expected"


def test_integers_beside_products(assert_close: Any) -> None:
    class Mixes(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return tanh(x + 0.5 * h + self.linear("a", x))

    compare(Recurrent(Mixes, 4, 4), assert_close, integer=True, lengths=True)


@pytest.mark.parametrize("seed", range(40))
def test_random_cells(seed: int, assert_close: Any) -> None:
    """Equations over every operation, in float64 where ONNX Runtime has them all."""
    cell = random_cell(seed)
    definition = cell.definition()
    double = bool(definition.params) and not any(n.op == "erf" for n in definition.graph.nodes)
    layer = Recurrent([cell], bidirectional=seed % 2 == 0, dtype=torch.float64 if double else None)
    model = compare(
        layer,
        assert_close,
        lengths=seed % 3 == 0,
        reset=seed % 4 == 1,
        integer=seed % 5 == 2,
        tolerance=1e-13 if double else TOLERANCE,
        sizes=((4, 3), (2, 1)),
    )
    assert operators(model) == {"Scan"}


def test_layers_of_different_kinds(assert_close: Any) -> None:
    layer = Recurrent([LSTMCell(3, 4), GRUCell(4, 6, reset_after=False), Mine(6, 1)])
    model = compare(layer, assert_close, lengths=True)
    assert operators(model) == {"LSTM", "GRU", "Scan"}
    assert [i.name for i in model.graph.input] == ["x", "lengths", "h0_l0", "c0_l0", "h0_l1", "h0_l2"]
    assert [o.name for o in model.graph.output] == ["output", "hn_l0", "cn_l0", "hn_l1", "hn_l2"]


def test_the_classes_name_does_not_matter(assert_close: Any) -> None:
    """What decides is the equations: a user's class with those of the GRU becomes a GRU."""

    class Gated(Cell):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            x_r, x_z, x_n = self.linear("r z n", x)
            h_r, h_z, h_n = self.linear("r z n", h)
            reset, keep = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
            new = tanh(x_n + reset * h_n)
            return (1 - keep) * new + keep * h

    assert operators(compare(Recurrent(Gated, 3, 5), assert_close)) == {"GRU"}


def test_double_precision(assert_close: Any) -> None:
    """ONNX Runtime's LSTM has float32 only, so a float64 layer is a Scan."""
    layer = LSTM(3, 5, peephole=True, bidirectional=True, dtype=torch.float64)
    assert operators(compare(layer, assert_close, lengths=True, tolerance=1e-14)) == {"Scan"}


@pytest.mark.parametrize("embed", [0, 4])
def test_a_character_model(embed: int, assert_close: Any) -> None:
    """Ids in, logits out, with the output layer and the embedding in the file."""
    sizes = [embed or 9, 6]
    model = CharModel([cells.LSTM(i, 6).definition() for i in sizes], 9, embed=embed)
    made = model.to_onnx()
    onnx.checker.check_model(made, full_check=True)
    ids, state = torch.randint(0, 9, (7, 3)), initial(model.recurrent, 3)
    with torch.no_grad():
        want, last = model(ids, state)
    run = session(made)
    names = [i.name for i in run.get_inputs()]
    found = run.run(None, dict(zip(names, [t.numpy() for t in (ids, *groups(state, True))], strict=True)))
    for got, w in zip(found, [want, *groups(last, True)], strict=True):
        assert_close("logits and states", torch.from_numpy(got), w, TOLERANCE)


def test_the_file_is_the_model(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    model = to_onnx(GRU(3, 4), file, lengths=True)
    assert onnx.load(file) == model
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (model.producer_name, model.ir_version, model.opset_import[0].version) == ("cellwright", 10, 21)


WRAPPED = {
    "heads": lambda: Recurrent(SLSTMCell, 3, 6, heads=3),
    "zoneout": lambda: LSTM(3, 4, 2, zoneout=0.3, bidirectional=True),
    "layer norm": lambda: RNN(3, 4, layer_norm=True),
    "clip": lambda: GRU(3, 4, state_clip=0.1),
    "start": lambda: GRU(3, 4, learn_initial_state=True),
    "residual": lambda: LSTM(4, 4, 3, residual=True),
    "highway": lambda: GRU(3, 4, 3, residual="highway", batch_first=True),
    "both": lambda: Recurrent(Mine, 4, 4, num_layers=2, residual="highway", bidirectional=True, merge="mean"),
    "sum": lambda: LSTM(3, 5, 2, bidirectional=True, merge="sum", residual=True, proj_size=2),
    "pair": lambda: RNN(3, 4, 2, bidirectional=True, merge="none", batch_first=True),
    "all": lambda: LSTM(4, 4, 2, layer_norm=True, residual=True, zoneout=0.2, learn_initial_state=True, state_clip=0.5),
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("reset", [False, True], ids=["whole", "resets"])
def test_wrapped_layers_as_they_are_in_evaluation(name: str, reset: bool, assert_close: Any) -> None:
    layer = WRAPPED[name]().eval()
    for one, parameter in layer.named_parameters():
        if one.startswith("initial"):
            nn.init.normal_(parameter)
    compare(layer, assert_close, lengths=True, reset=reset)


@pytest.mark.parametrize("integer", [False, True])
def test_what_goes_past_a_layer(integer: bool, assert_close: Any) -> None:
    layer = Recurrent([LSTMCell(5, 5), GRUCell(5, 7), Mine(7, 7)], residual="highway")
    assert operators(compare(layer, assert_close, integer=integer)) == {"LSTM", "GRU", "Scan"}


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN, partial(Recurrent, Mine)])
@pytest.mark.parametrize(("T", "B"), [(4, 0), (0, 3)])
def test_nothing_to_do(kind: Any, T: int, B: int) -> None:
    """No sequence, or no step, through the importer: ONNX Runtime's operators end the process."""
    layer = kind(3, 5, bidirectional=True)
    model, state = to_onnx(layer), initial(layer, B)
    with torch.no_grad():
        output, *last = from_onnx(model)(torch.zeros(T, B, 3), *groups(state, False))
    assert output.shape == (T, B, 10)
    for got, before in zip(last, groups(state, False), strict=True):
        assert torch.equal(got, before)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"got an output layer and merge='none', which has two outputs"):
        to_onnx(LSTM(3, 4, bidirectional=True, merge="none"), output=nn.Linear(4, 2))
    with pytest.raises(OptionError, match=r"got a Mine to export, expected RNN.*Recurrent\(\[cell\]\)"):
        to_onnx(Mine(3, 4))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"got weights of torch.bfloat16, expected float32 or float64"):
        to_onnx(LSTM(3, 4, dtype=torch.bfloat16))
    with pytest.raises(OptionError, match="got weights of float32 and float64, expected one dtype"):
        to_onnx(LSTM(3, 4), output=nn.Linear(4, 2, dtype=torch.float64))
    with pytest.raises(OptionError, match="got an output layer for 5 features, the layer gives 4"):
        to_onnx(LSTM(3, 4), output=nn.Linear(5, 2))
    with pytest.raises(OptionError, match=r"got symbols of shape \[9, 2\], expected \[V, 3\]"):
        to_onnx(LSTM(3, 4), symbols=torch.zeros(9, 2))
    with pytest.raises(DataError, match=r"none/model.onnx cannot be written: No such file or directory"):
        to_onnx(LSTM(3, 4), tmp_path / "none" / "model.onnx")
