"""What a person reads: equations with their brackets right, in text and in LaTeX."""

import re
from typing import Any

import pytest

from cellwright import ACTIVATIONS, Equations, tanh
from cellwright.cells import GRU, LSTM, Elman
from cellwright.emit.to_latex import LatexWriter, latex
from cellwright.lang.show import Writer, text


def test_lstm_reads_like_the_paper() -> None:
    lines = {left: right for _, left, right in Writer(LSTM(3, 5, peephole=True).definition()).lines()}
    assert lines["i"] == "sigmoid(W_i x[t] + bW_i + R_i h[t-1] + bR_i + p_i * c[t-1])"
    assert lines["o"] == "sigmoid(W_o x[t] + bW_o + R_o h[t-1] + bR_o + p_o * c[t])"
    assert lines["c[t]"] == "f * c[t-1] + i * g"
    assert lines["h[t]"] == "o * tanh(c[t])"


def test_gru_before_multiplies_inside_the_product() -> None:
    lines = {left: right for _, left, right in Writer(GRU(3, 5, reset_after=False).definition()).lines()}
    assert "R_n (r * h[t-1])" in lines["n"]


def test_brackets() -> None:
    class Brackets(Equations):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            a = self.linear("a", x)
            return (a + h) * (a - (h - 1)) / (-h * (2 / (a / h)))

    (*_, (_, _, right)) = Writer(Brackets(3, 5, bias=False).definition()).lines()
    assert right == "(a1 + h[t-1]) * (a1 - (h[t-1] - 1)) / (-h[t-1] * (2 / (a1 / h[t-1])))".replace("a1", "a")


def test_text_counts_parameters_and_names_the_plan() -> None:
    shown = text(LSTM(3, 5).definition())
    assert f"{4 * 5 * 3 + 4 * 5 * 5 + 2 * 4 * 5} parameters" in shown
    assert re.search(r"before the loop +weight_ih \(i f g o\): \[4H, I\]", shown)
    assert "saved           i, f, g, o" in shown


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_latex_is_balanced(name: str) -> None:
    shown = latex(Elman(3, 5, activation=name).definition())
    assert shown.count("{") == shown.count("}")
    assert shown.count(r"\left") == shown.count(r"\right")
    assert shown.startswith(r"\begin{align*}")


def test_latex_of_the_lstm() -> None:
    shown = latex(LSTM(3, 5).definition())
    assert r"c_{t} &= f_{t} \odot c_{t-1} + i_{t} \odot g_{t} \\" in shown
    assert r"h_{t} &= o_{t} \odot \tanh\left(c_{t}\right)" in shown


def test_a_cell_without_weights() -> None:
    class Leak(Equations):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return 0.5 * h + tanh(x)

    shown = text(Leak(4, 4).definition())
    assert "0 parameters" in shown
    assert "no product with a state" in shown


class Twice(Equations):
    """One value for two states, and a leaf for a third."""

    states = {"h": "hidden_size", "c": "hidden_size", "last": "input_size"}

    def step(self, x: Any, h: Any, c: Any, last: Any) -> Any:
        h = tanh(self.linear("n", x) + self.linear("n", last, matrix="last"))
        h = h * 2 - 1e-7 * c
        return h, h, x


def test_every_state_has_its_line_and_only_one() -> None:
    lines = Writer(Twice(3, 4, bias=False).definition()).lines()
    assert [(left, right) for _, left, right in lines] == [
        ("h[t]", "tanh(W_n x[t] + Wlast_n last[t-1]) * 2 - 1e-07 * c[t-1]"),
        ("c[t]", "h[t]"),
        ("last[t]", "x[t]"),
    ]
    assert [left for _, left, _ in LatexWriter(Twice(3, 4).definition()).lines()] == [
        "h_{t}",
        "c_{t}",
        r"\mathrm{last}_{t}",
    ]
    assert r"10^{-7}" in latex(Twice(3, 4).definition())


def test_negative_numbers_have_brackets() -> None:
    class Negative(Equations):
        states = "h"

        def step(self, x: Any, h: Any) -> Any:
            return h - (-0.5) + (-2.0) * h

    (_, _, right) = Writer(Negative(3, 4).definition()).lines()[-1]
    assert right == "h[t-1] - (-0.5) + (-2) * h[t-1]"
