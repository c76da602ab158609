"""The reference target: every operation against its meaning on numbers, and the planned gradient against autograd."""

import math
import random
from typing import Any

import pytest
import torch

from cellwright import (
    Equations,
    cos,
    elu,
    erf,
    exp,
    gelu,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    sum_units,
    tanh,
    where,
)
from cellwright.cells import GRU, LSTM, Elman
from cellwright.emit import to_latex, to_onnx, to_torch
from cellwright.emit.to_cpu import vectors
from cellwright.emit.to_torch import run, run_back
from cellwright.lang import OPS, Plan, with_reset, with_valid
from cellwright.lang.ops import ROWS, Op
from tests.random_cells import random_cell

F64 = torch.float64


TABLES = {
    "torch": to_torch.SPELLING,
    "latex": to_latex.SPELLING,
    "cpu": vectors.SPELLING,
    "onnx": to_onnx.SPELLING,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_target_spells_every_operation(table: dict[str, Any]) -> None:
    assert set(table) == set(OPS)


POINTS = [-1000.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 2.0, 3.0, 1000.0, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("op", [r for r in ROWS if r.kind == "elementwise"], ids=lambda op: op.name)
def test_operation_has_its_meaning(op: Op) -> None:
    rows = [[a] for a in POINTS] if op.arity == 1 else [[a, b] for a in POINTS for b in POINTS]
    rows = [[c, *r] for r in rows for c in (0.0, 1.0)] if op.arity == 3 else rows
    columns = [torch.tensor(c, dtype=F64) for c in zip(*rows, strict=True)]
    got = to_torch.SPELLING[op.name](*columns)
    for row, value in zip(rows, got.tolist(), strict=True):
        want = op.meaning(*row)
        same = (math.isnan(want) and math.isnan(value)) or math.isclose(want, value, rel_tol=1e-12, abs_tol=1e-14)
        assert same, f"{op.name}{tuple(row)}: got {value}, want {want}"


@pytest.mark.parametrize("op", [r for r in ROWS if r.kind == "elementwise"], ids=lambda op: op.name)
def test_operation_has_its_derivative(op: Op) -> None:
    """The rule of the language and torch's autograd, ties and kinks included."""
    values = [0.5, 1.0, 2.0] if op.name in ("log", "sqrt") else [-2.0, -0.5, 0.0, 1.0, 2.0]
    rows = [[a] for a in values] if op.arity == 1 else [[a, b] for a in values for b in (-0.5, 1.0, 3.0)]
    rows = [[c, *r] for r in rows for c in (0.0, 1.0)] if op.arity == 3 else rows
    for row in rows:
        leaves = [torch.tensor(v, dtype=F64, requires_grad=True) for v in row]
        y = to_torch.SPELLING[op.name](*leaves)
        want = torch.autograd.grad(y, leaves, allow_unused=True) if y.requires_grad else [None] * len(leaves)
        for got, w in zip(op.derivative(1.0, op.meaning(*row), *row), want, strict=True):
            assert math.isclose(got or 0.0, 0.0 if w is None else w.item(), rel_tol=1e-12, abs_tol=1e-15), (
                op.name,
                row,
            )


class Everything(Equations):
    """Uses every operation of the table, norms, shared weights, constants, and products of several sizes."""

    states = {"h": "hidden_size", "c": "hidden_size", "s": "small_size"}
    small_size = 2

    def step(self, x: Any, h: Any, c: Any, s: Any) -> Any:
        a, b = self.norm("n m", self.linear("a b", x) + self.linear("a b", h))
        m = self.linear("m", sigmoid(a) * h) * sin(b)
        k = self.linear("k", m, matrix="kx", size="input_size", bias=False) * x
        q = self.linear("q", k, matrix="q") + self.scale("p", relu(c))
        total = sum_units(abs(m))
        h = gelu(m) - self.bias("z") + erf(q) * cos(a) + maximum(a, 0.1) * minimum(b, c) + sign(b)
        c = c * 0.5 + exp(-b * b) * sqrt(1 + m**2) / (2 + total) + where(b < m, softplus(b), elu(c)) + log(1 + c * c)
        return h, tanh(c), self.linear("s", h, matrix="s", size="small_size") + 0.1 * s


CELLS = {
    "elman": lambda i, h: Elman(i, h),
    "lstm": lambda i, h: LSTM(i, h),
    "lstm all": lambda i, h: (
        LSTM(i, h, peephole=True, coupled=True, proj_size=1) if h > 1 else LSTM(i, h, peephole=True)
    ),
    "gru": lambda i, h: GRU(i, h),
    "gru before": lambda i, h: GRU(i, h, reset_after=False),
    "everything": lambda i, h: Everything(i, h),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("masks", [False, True], ids=["plain", "masks"])
@pytest.mark.parametrize("whole", [False, True], ids=["vectors", "one-hot"])
@pytest.mark.parametrize(("T", "B", "I", "H"), [(6, 4, 3, 5), (1, 1, 1, 1), (3, 2, 7, 63)])
@pytest.mark.parametrize("name", CELLS)
def test_planned_gradient_is_the_gradient(
    name: str,
    T: int,
    B: int,
    I: int,
    H: int,
    whole: bool,
    masks: bool,
    reverse: bool,
    assert_close: Any,
) -> None:
    definition = CELLS[name](I, H).definition()
    definition = with_valid(with_reset(definition)) if masks else definition
    plan = Plan(definition)
    weights = {
        n: torch.randn(p.shape(definition.sizes), dtype=F64).requires_grad_() for n, p in definition.params.items()
    }
    x = torch.randint(0, I, (T, B)) if whole else torch.randn(T, B, I, dtype=F64).requires_grad_()
    inputs = {"x": x}
    if masks:
        inputs |= {"valid": (torch.rand(T, B, 1) > 0.3).double(), "reset": (torch.rand(T, B, 1) > 0.7).double()}
    state = {n: torch.randn(B, definition.state_size(n), dtype=F64).requires_grad_() for n in definition.states}
    record = run(plan, weights, inputs, state, reverse, plan.backward.saved)
    seeds = {n: torch.randn(T, B, definition.state_size(n), dtype=F64) for n in definition.states}
    loss = torch.stack([(torch.stack(record.states[n]) * g).sum() for n, g in seeds.items()]).sum()
    leaves = {**weights, **state} | ({} if whole else {"x": x})
    want = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
    with torch.no_grad():
        got = run_back(plan, weights, inputs, state, record, seeds, reverse)
    scale = max(1.0, max(float(w.abs().max()) for w in want.values() if w is not None))
    for n, gradient in (got.weights | got.states | ({} if whole else {"x": got.inputs["x"]})).items():
        assert_close(n, gradient, want[n], 1e-11 * scale)


@pytest.mark.parametrize("seed", range(60))
def test_planned_gradient_of_random_cells(seed: int, assert_close: Any) -> None:
    choice = random.Random(seed)
    definition = random_cell(seed).definition()
    definition = with_valid(with_reset(definition)) if choice.random() < 0.5 else definition
    plan, T, B, I = Plan(definition), 4, 3, definition.input_size
    weights = {n: torch.randn(p.shape(definition.sizes), dtype=F64) * 0.5 for n, p in definition.params.items()}
    weights = {n: w.requires_grad_() for n, w in weights.items()}
    x = torch.randint(0, I, (T, B)) if choice.random() < 0.4 else torch.randn(T, B, I, dtype=F64)
    inputs = {"x": x} | {n: (torch.rand(T, B, 1) > 0.3).double() for n in definition.graph.find("input") if n != "x"}
    state = {n: torch.randn(B, definition.state_size(n), dtype=F64).requires_grad_() for n in definition.states}
    reverse = choice.random() < 0.5
    record = run(plan, weights, inputs, state, reverse, plan.backward.saved)
    seeds = {n: torch.randn(T, B, definition.state_size(n), dtype=F64) for n in definition.states}
    loss = torch.stack([(torch.stack(record.states[n]) * g).sum() for n, g in seeds.items()]).sum()
    leaves = {**weights, **state}
    want = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
    with torch.no_grad():
        got = run_back(plan, weights, inputs, state, record, seeds, reverse)
    scale = max(1.0, max(float(w.abs().max()) for w in want.values() if w is not None))
    for n, gradient in (got.weights | got.states).items():
        assert_close(n, gradient, want[n], 1e-9 * scale)


def test_one_hot_integers_are_one_hot_vectors() -> None:
    for name, make in CELLS.items():
        definition = make(5, 4).definition()
        plan = Plan(definition)
        weights = {n: torch.randn(p.shape(definition.sizes), dtype=F64) for n, p in definition.params.items()}
        state = {n: torch.randn(2, definition.state_size(n), dtype=F64) for n in definition.states}
        ids = torch.randint(0, 5, (3, 2))
        a = run(plan, weights, {"x": ids}, state)
        b = run(plan, weights, {"x": torch.nn.functional.one_hot(ids, 5).double()}, state)
        for n in definition.states:
            assert (torch.stack(a.states[n]) - torch.stack(b.states[n])).abs().max() < 1e-13, name


class Constant(Equations):
    """Results that depend on nothing, on a weight alone, on the input alone."""

    states = "a b c"

    def step(self, x: Any, a: Any, b: Any, c: Any) -> Any:
        return 0 * b + 1.5, 0 * a + self.bias("q"), tanh(self.linear("w", x))


def test_results_that_depend_on_no_state_have_full_rows() -> None:
    plan = Plan(Constant(3, 4).definition())
    weights = {n: torch.randn(p.shape(plan.definition.sizes)) for n, p in plan.definition.params.items()}
    state = {n: torch.zeros(2, 4) for n in "abc"}
    record = run(plan, weights, {"x": torch.randn(5, 2, 3)}, state)
    assert all(s.shape == (2, 4) for values in record.states.values() for s in values)
