"""Cells that look into a memory, exported and run by ONNX Runtime, against the layers themselves."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cellwright import Attentive, GRUCell, LSTMCell, RNNCell, SLSTMCell, use_target
from cellwright.cells import BY_NAME
from cellwright.convert import to_onnx
from cellwright.nn.built_in import with_weights
from tests.convert.onnx.models import Mine, Normed, session

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx; pip install 'cellwright[onnx]'")
pytest.importorskip("onnxruntime", reason="the models are run by onnxruntime; pip install onnxruntime")

TOLERANCE = 1e-5
I, M, P = 3, 4, 6
CELLS: dict[str, Any] = {
    "lstm": LSTMCell,
    "lstm projected": lambda inputs, units, **o: LSTMCell(inputs, units + 1, proj_size=units, **o),
    "gru": GRUCell,
    "slstm": lambda inputs, units, **o: SLSTMCell(inputs, units, heads=2, **o),
    "own": Mine,
    "normed": Normed,
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": True},
    "reset": {"reset": True},
    "all, batch first": {"lengths": True, "reset": True, "batch_first": True},
}


def compare(
    layer: Attentive, assert_close: Any, *, lengths: bool = False, reset: bool = False, table: Tensor | None = None,
    output: nn.Linear | None = None, integer: bool = False,
) -> None:  # fmt: skip
    """One model, at several sizes that the export has not seen: no position at all is one of them."""
    model = to_onnx(layer, lengths=lengths, reset=reset, symbols=table, output=output, integer=integer)
    onnx.checker.check_model(model, full_check=True)
    dtype = next(layer.parameters()).dtype
    run = session(model, dtype == torch.float64)
    turn = (lambda value: value.transpose(0, 1).contiguous()) if layer.batch_first else (lambda value: value)
    for T, B, S in ((6, 4, 5), (1, 1, 1), (3, 5, 0), (11, 2, 7)):
        features = I if table is None else table.shape[1]
        ids = torch.randint(0, len(table) if table is not None else I, (T, B))
        x = torch.randn(T, B, features, dtype=dtype)
        memory = torch.randn(S, B, layer.memory_size, dtype=dtype)
        states = layer.recurrent.definitions[0].states
        state = tuple(0.5 + torch.rand(B, layer.recurrent.definitions[0].state_size(s), dtype=dtype) for s in states)
        given: dict[str, Tensor] = {"memory": turn(memory)} | {f"{n}0": v for n, v in zip(states, state, strict=True)}
        if integer or table is not None:
            given["x"] = turn(ids)
            x = nn.functional.one_hot(ids, I).to(dtype) if table is None else table[ids]
        if lengths:  # whatever stands in the padding
            given |= {"lengths": torch.arange(B) * T // max(B - 1, 1), "memory_lengths": S - torch.arange(B) % (S + 1)}
            x = x.masked_fill((torch.arange(T).unsqueeze(1) >= given["lengths"]).unsqueeze(-1), torch.nan)
            memory[torch.arange(S).unsqueeze(1) >= given["memory_lengths"]] = torch.nan
            given["memory"] = turn(memory)
        if reset:
            given["reset"] = turn(torch.rand(T, B) < 0.4)
        given.setdefault("x", turn(x))
        more: dict[str, Any] = {k: given[k] for k in ("lengths", "memory_lengths", "reset") if k in given}
        with torch.no_grad(), use_target("torch"):
            want, last, weights = layer(turn(x), turn(memory), state if len(state) > 1 else state[0], **more)
            want = want if output is None else output(want)
        assert {i.name for i in run.get_inputs()} == set(given)
        found = run.run(None, {name: value.numpy() for name, value in given.items()})
        expected = {"output": want}
        expected |= {f"{n}n": v for n, v in zip(states, last if len(state) > 1 else (last,), strict=True)}
        expected["weights"] = weights
        assert [o.name for o in run.get_outputs()] == list(expected)
        for got, (name, value) in zip(found, expected.items(), strict=True):
            assert_close(f"{name} at T={T}, B={B}, S={S}", torch.from_numpy(got), value, TOLERANCE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("score", ["additive", "general", "dot"])
@pytest.mark.parametrize("cell", CELLS)
def test_models_compute_what_the_layers_do(cell: str, score: str, layout: str, assert_close: Any) -> None:
    size = P if score == "dot" else M
    options = dict(LAYOUTS[layout])
    layer = Attentive(CELLS[cell](I + size, P), size, score=score, batch_first=options.pop("batch_first", False))
    compare(layer, assert_close, **options)


@pytest.mark.parametrize("cell", BY_NAME)
def test_every_cell(cell: str, assert_close: Any) -> None:
    compare(Attentive(with_weights(BY_NAME[cell], "Mine")(I + M, P), M), assert_close, lengths=True, reset=True)


@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
def test_integers_symbols_and_what_follows(lengths: bool, assert_close: Any) -> None:
    layer = Attentive(GRUCell(I + M, P), M)
    compare(layer, assert_close, lengths=lengths, integer=True)
    compare(layer, assert_close, lengths=lengths, table=torch.randn(9, I), output=nn.Linear(P, 2))


def test_float64(assert_close: Any) -> None:
    compare(Attentive(RNNCell(I + M, P, dtype=torch.float64), M), assert_close, lengths=True, reset=True)
