"""Tracing a step: what authors write, and what they get wrong."""

import cProfile
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch

from cellwright import CellError, Equations, OptionError, maximum, sigmoid, tanh, where
from cellwright.lang.trace import Group


class Base(Equations):
    """One state h; `body` computes the result."""

    states = "h"

    def step(self, x: Any, h: Any) -> Any:
        a = self.linear("a", x) + self.linear("a", h)
        return self.body(a, x, h)

    def body(self, a: Any, x: Any, h: Any) -> Any:
        return tanh(a)


def cell(body: Any, name: str = "Mine", **namespace: Any) -> Equations:
    return type(name, (Base,), {"body": body, **namespace})(3, 4)


def error(body: Any, **namespace: Any) -> str:
    with pytest.raises(CellError) as caught:
        cell(body, **namespace).definition()
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (lambda s, a, x, h: torch.tanh(a), "torch's tanh"),
        (lambda s, a, x, h: torch.nn.functional.gelu(a), "torch's gelu"),
        (lambda s, a, x, h: np.tanh(a), "NumPy's tanh"),
        (lambda s, a, x, h: math.tanh(a), "a function of the math module"),
        (lambda s, a, x, h: a.tanh(), "uses .tanh"),
        (lambda s, a, x, h: a @ a, "use linear for a dense product"),
        (lambda s, a, x, h: a[0], "indexing"),
        (lambda s, a, x, h: [v for v in a], "iteration"),
        (lambda s, a, x, h: len(a) * a, "len()"),
        (lambda s, a, x, h: a % 2, "uses %"),
        (lambda s, a, x, h: a if a > 0 else h, "branches on a traced value"),
        (lambda s, a, x, h: a and h, "branches on a traced value"),
        (lambda s, a, x, h: max(a, h), "branches on a traced value"),
        (lambda s, a, x, h: a if a == 0 else h, "compares traced values with =="),
        (lambda s, a, x, h: a if a != h else h, "compares traced values with =="),
        (lambda s, a, x, h: a**1.5, "got the power 1.5"),
        (lambda s, a, x, h: a + x, "vectors of H = 4 and I = 3 units"),
        (lambda s, a, x, h: tanh(torch.zeros(4)), "tanh() got a Tensor"),
        (lambda s, a, x, h: a + torch.zeros(4), "add() got a Tensor"),
        (lambda s, a, x, h: torch.zeros(4) + a, "torch's add"),
        (lambda s, a, x, h: np.zeros(4) + a, "NumPy's add"),
        (lambda s, a, x, h: nonsense(a), "NameError: name 'nonsense' is not defined"),  # noqa: F821
        (lambda s, a, x, h: a + "1", "add() got a str"),
        (lambda s, a, x, h: None, "returned nothing"),
        (lambda s, a, x, h: (a, h), "returned 2 values, expected one per state: h"),
        (lambda s, a, x, h: 0.5, "returned a float for state 'h'"),
        (lambda s, a, x, h: x, "returned a vector of size input_size = 3"),
        (lambda s, a, x, h: s.linear("a b", x), "returned 2 values"),
        (lambda s, a, x, h: s.linear("", x), "got the names ''"),
        (lambda s, a, x, h: s.linear("b b", x), "got the names 'b b'"),
        (lambda s, a, x, h: s.linear("b", 1.0), "linear('b', ...) got a float"),
        (lambda s, a, x, h: s.linear("b", x, size="width"), "got the size 'width'"),
        (lambda s, a, x, h: s.linear("b", x, matrix="hh"), "weight_hh got a source of size I"),
        (lambda s, a, x, h: s.linear("b-c", x), "names like those of variables"),
        (lambda s, a, x, h: s.linear("b", x, starts={"f": 1.0}), "starts for f"),
        (lambda s, a, x, h: s.linear("b", h, matrix="b", heads=3), "heads=3 for 4 x 4 units"),
        (lambda s, a, x, h: s.linear("b", x, matrix="b", heads=2), "heads=2 for 4 x 3 units"),
        (lambda s, a, x, h: s.linear("b", h, matrix="b", heads=0), "heads=0"),
        (lambda s, a, x, h: s.linear("b", h, matrix="b", heads=2.0), "heads=2.0"),
        (lambda s, a, x, h: s.linear("b", h, heads=2), "heads=2, but it was declared with 1"),
        (lambda s, a, x, h: s.norm("b", a, starts={"c": 1.0}), "norm got starts for c"),
        (lambda s, a, x, h: s.norm("b c", Group([a, x]), together="n"), "values of different sizes"),
        (lambda s, a, x, h: s.norm("b c", a, together="n"), "got 2 names"),
        (lambda s, a, x, h: s.norm("b", 1.0, together="n"), "got a float"),
        (lambda s, a, x, h: s.scale("p q r", s.linear("b c", x)), "got 3 names"),
        (lambda s, a, x, h: s.linear("b c", x) + s.linear("d e f", x), "groups of 2 and 3"),
    ],
)
def test_what_a_step_may_not_do(body: Any, said: str) -> None:
    message = error(body)
    assert said in message
    assert message.startswith("Mine.step")


def test_wrong_arguments_of_step() -> None:
    class Wrong(Equations):
        states = "h", "c"

        def step(self, x: Any, h: Any) -> Any:
            return h

    with pytest.raises(CellError, match=r"Wrong.step got the arguments .* expected step\(self, x, h, c\)"):
        Wrong(2, 3).definition()


@pytest.mark.parametrize("states", ["", (), 3, ("h", 2), "a-b"])
def test_wrong_states(states: Any) -> None:
    with pytest.raises(CellError, match="got states="):
        cell(Base.body, states=states).definition()


def test_states_of_an_unknown_size() -> None:
    with pytest.raises(CellError, match="state 'h' got the size 'width', expected one of input_size, hidden_size"):
        cell(Base.body, states={"h": "width"}).definition()


def test_no_step() -> None:
    class Empty(Equations):
        states = "h"

    with pytest.raises(CellError, match="Empty has no step"):
        Empty(2, 3).definition()


def test_words_outside_of_a_step() -> None:
    with pytest.raises(CellError, match=r"linear\(...\) was called outside of a step"):
        Base(2, 3).linear("a", None)


def test_values_of_another_trace() -> None:
    kept: list[Any] = []

    class Keeps(Base):
        def body(self, a: Any, x: Any, h: Any) -> Any:
            kept.append(a)
            return kept[0] + a

    Keeps(3, 4).definition()
    with pytest.raises(CellError, match="two different cells"):
        Keeps(3, 4).definition()


def test_options() -> None:
    class Options(Base):
        on = False
        rate = 0.5
        depth = 2
        kind = "tanh"
        _hidden = 3

    assert Options.defaults() == {"on": False, "rate": 0.5, "depth": 2, "kind": "tanh"}
    assert Options(2, 3, on=True, rate=1).options == {"on": True, "rate": 1.0, "depth": 2, "kind": "tanh"}
    with pytest.raises(OptionError, match=r"unknown option peep=True; its options are: on=False, rate=0.5"):
        Options(2, 3, peep=True)
    for wrong in ({"on": 1}, {"depth": 1.5}, {"depth": True}, {"kind": 3}, {"rate": "high"}):
        with pytest.raises(OptionError, match="expected"):
            Options(2, 3, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, 1.5, "3", True, None])
def test_sizes(size: Any) -> None:
    with pytest.raises(OptionError, match="expected a whole number of at least 1"):
        Base(size, 3)
    with pytest.raises(OptionError, match="expected a whole number of at least 1"):
        Base(3, size)


def test_bias_argument() -> None:
    assert list(Base(2, 3).definition().params) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert list(Base(2, 3, bias="input").definition().params) == ["weight_ih", "weight_hh", "bias_ih"]
    assert list(Base(2, 3, bias=False).definition().params) == ["weight_ih", "weight_hh"]
    with pytest.raises(OptionError, match="got bias='output'"):
        Base(2, 3, bias="output")  # type: ignore[arg-type]


def test_labels_are_the_authors_names() -> None:
    class Named(Equations):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            gate = sigmoid(self.linear("g", x) + self.linear("g", h))
            unused = gate * 2  # noqa: F841
            return gate * h

    labels = set(Named(2, 3).definition().graph.labels.values())
    assert labels == {"gate", "h"}


def test_an_option_that_is_off_leaves_no_trace() -> None:
    plain = cell(lambda s, a, x, h: tanh(a)).definition()
    same = cell(lambda s, a, x, h: tanh((a + 0) * 1 / 1 - 0)).definition()
    assert plain.graph.nodes == same.graph.nodes


def test_constants_are_folded_and_python_operators_work() -> None:
    definition = cell(
        lambda s, a, x, h: abs(-(a**2)) + a**-1 + 2 / a + 1 - (3 - a) + (a >= h) * (a <= 1) + (+a)
    ).definition()
    assert {"abs", "div", "less", "sub"} <= {n.op for n in definition.graph.nodes}


def test_groups_treat_their_members_alike() -> None:
    class Grouped(Equations):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            pair = where(self.linear("a b", x) < 0, 0.0, sigmoid(self.linear("a b", h))) * 2
            assert isinstance(pair, Group)
            a, b = maximum(pair, 1) + h
            return a * b

    assert len(Grouped(2, 3).definition().params["weight_hh"].slices) == 2


def test_the_tracer_leaves_a_profiler_alone() -> None:
    def profiler(*args: Any) -> None:
        return None

    sys.setprofile(profiler)
    try:
        Base(2, 3).definition()
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    with cProfile.Profile():
        Base(2, 3).definition()
    Base(2, 3).definition()
    assert sys.getprofile() is None


def test_sizes_that_are_equal_may_meet() -> None:
    square = type("Residual", (Base,), {"body": lambda s, a, x, h: tanh(a) + x})
    assert square(4, 4).definition().output_size == 4
    with pytest.raises(CellError, match="vectors of H = 4 and I = 3 units"):
        square(3, 4).definition()


def test_numpy_numbers_are_numbers() -> None:
    def body(s: Any, a: Any, x: Any, h: Any) -> Any:
        half, two = np.float64(0.5), np.int64(2)
        return half * a + a * np.float32(0.5) - two + (two - h) / two + h**2.0 + h**-0.5

    assert cell(body).definition().output_size == 4


def test_where_with_a_plain_condition_is_decided_at_once() -> None:
    chosen = cell(lambda s, a, x, h: where(True, a, h) + where(0, h, 1.0)).definition()
    assert chosen.graph.nodes == cell(lambda s, a, x, h: a + 1.0).definition().graph.nodes


def test_a_step_may_make_another_cell() -> None:
    def body(s: Any, a: Any, x: Any, h: Any) -> Any:
        Base(2, 3).definition()
        return tanh(a)

    assert cell(body).definition().graph.nodes == cell(Base.body).definition().graph.nodes


def test_states_need_an_order() -> None:
    for states in ({"h", "c"}, ("h", "h")):
        with pytest.raises(CellError, match="got states="):
            cell(Base.body, states=states).definition()


@pytest.mark.parametrize("name", ["hidden_size", "bias", "step", "options"])
def test_reserved_option_names(name: str) -> None:
    if name != "step":
        with pytest.raises(OptionError, match=f"an option {name!r}"):
            cell(Base.body, **{name: 3})


def test_a_bias_that_is_true_in_another_way() -> None:
    for yes in (1, np.True_):
        assert "bias_ih" in Base(2, 3, bias=yes).definition().params  # type: ignore[arg-type]
    assert "bias_ih" not in Base(2, 3, bias=0).definition().params  # type: ignore[arg-type]


def test_a_size_may_be_a_property() -> None:
    class Wide(Base):
        @property
        def inner_size(self) -> int:
            return 2 * self.hidden_size

        def body(self, a: Any, x: Any, h: Any) -> Any:
            return self.linear("o", self.linear("w", h, size="inner_size", matrix="up"), matrix="down")

    assert Wide(3, 4).definition().params["weight_up"].shape(Wide(3, 4).definition().sizes) == (8, 4)


def test_mends_name_functions_that_exist() -> None:
    assert "write cellwright.gelu(...)" in error(lambda s, a, x, h: torch.nn.functional.gelu(a))
    assert "sum_units" in error(lambda s, a, x, h: a @ a)
    assert "got the power a traced value" in error(lambda s, a, x, h: a**a)
