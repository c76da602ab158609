"""Every row of the table: its derivative against finite differences, on plain numbers, and its edges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwright.errors import CellError
from cellwright.lang import ACTIVATIONS, OPS
from cellwright.lang.functions import tanh
from cellwright.lang.ops import ROWS, Op, apply

ELEMENTWISE = [row for row in ROWS if row.kind == "elementwise"]
EPS = 1e-6


def _points(op: Op) -> list[tuple[float, ...]]:
    positive = op.name in ("log", "sqrt")
    values = (0.3, 1.7, 2.9) if positive else (-2.3, -0.7, 0.4, 1.9)
    if op.arity == 1:
        return [(a,) for a in values]
    if op.arity == 2:
        return [(a, b) for a in values for b in (-1.3, 0.6, 2.2)]
    return [(c, a, b) for c in (0.0, 1.0) for a in values for b in (-1.3, 0.6)]


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_derivative_against_finite_differences(op: Op) -> None:
    for args in _points(op):
        rule = op.derivative(1.0, op.meaning(*args), *args)
        assert len(rule) == op.arity
        for k, share in enumerate(rule):
            moved = [[a + s * EPS * (j == k) for j, a in enumerate(args)] for s in (1, -1)]
            slope = (op.meaning(*moved[0]) - op.meaning(*moved[1])) / (2 * EPS)
            if op.name == "where" and k == 0:
                assert share is None
            else:
                assert math.isclose(share or 0.0, slope, rel_tol=1e-6, abs_tol=1e-7), (op.name, args, k)


def test_rows_are_unique_and_named_as_functions_call_them() -> None:
    assert len(OPS) == len(ROWS)


@given(st.floats(allow_nan=False))
def test_meanings_take_every_number(a: float) -> None:
    for op in ELEMENTWISE:
        if op.arity == 1:
            assert isinstance(op.meaning(a), (float, int)), op.name


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if op.name not in ("less", "where")], ids=lambda op: op.name)
def test_a_nan_stays_a_nan(op: Op) -> None:
    for k in range(op.arity):
        args = [math.nan if j == k else 1.0 for j in range(op.arity)]
        assert math.isnan(op.meaning(*args)), op.name


def test_ties_share_the_gradient_as_torch_does() -> None:
    assert OPS["maximum"].derivative(1.0, 2.0, 2.0, 2.0) == (0.5, 0.5)
    assert OPS["relu"].derivative(1.0, 0.0, 0.0) == (0.0,)
    assert OPS["abs"].derivative(1.0, 0.0, 0.0) == (0.0,)


def test_edges() -> None:
    assert OPS["exp"].meaning(1000.0) == math.inf
    assert OPS["sigmoid"].meaning(-1000.0) == 0.0
    assert OPS["sigmoid"].meaning(1000.0) == 1.0
    assert OPS["div"].meaning(1.0, 0.0) == math.inf
    assert OPS["div"].meaning(1.0, -0.0) == -math.inf
    assert math.isnan(OPS["div"].meaning(0.0, 0.0))
    assert OPS["softplus"].meaning(1000.0) == 1000.0
    assert OPS["log"].meaning(0.0) == -math.inf
    assert math.isnan(OPS["sqrt"].meaning(-1.0))


def test_functions_work_on_numbers() -> None:
    assert tanh(0.5) == math.tanh(0.5)
    assert ACTIVATIONS["hard_sigmoid"](10.0) == 1.0
    assert math.isclose(ACTIVATIONS["gelu"](1.0), 0.8413447460685429)
    assert math.isclose(ACTIVATIONS["elu"](-1.0), math.exp(-1) - 1)


def test_other_things_are_refused() -> None:
    with pytest.raises(CellError, match=r"tanh\(\) got a str, expected the symbols"):
        apply("tanh", "x")
