"""The equations of a cell as LaTeX (package amsmath)."""

import re
from typing import ClassVar

from ..lang.definition import Definition
from ..lang.show import ATOM, SUM, TERM, Writer
from ..lang.trace import letter

SPELLING = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": r"{} \odot {}",
    "div": r"\frac{{{}}}{{{}}}",
    "neg": "-{}",
    "maximum": r"\max\left({}, {}\right)",
    "minimum": r"\min\left({}, {}\right)",
    "less": r"\left[{} < {}\right]",
    "where": r"\operatorname{{where}}\left({}, {}, {}\right)",
    "tanh": r"\tanh\left({}\right)",
    "sigmoid": r"\sigma\left({}\right)",
    "relu": r"\operatorname{{relu}}\left({}\right)",
    "softplus": r"\operatorname{{softplus}}\left({}\right)",
    "exp": r"\exp\left({}\right)",
    "log": r"\log\left({}\right)",
    "sqrt": r"\sqrt{{{}}}",
    "abs": r"\left|{}\right|",
    "sign": r"\operatorname{{sign}}\left({}\right)",
    "sin": r"\sin\left({}\right)",
    "cos": r"\cos\left({}\right)",
    "erf": r"\operatorname{{erf}}\left({}\right)",
    "sum": r"\textstyle\sum\left({}\right)",
    "spread": "{}",
}


class LatexWriter(Writer):
    """Writes nodes as LaTeX."""

    spelling: ClassVar[dict[str, str]] = SPELLING
    places: ClassVar[dict[str, tuple[tuple[int, ...], int]]] = Writer.places | {"div": ((SUM, SUM), ATOM)}

    def name(self, i: int, k: int) -> str:
        """The left side of a line, with its time."""
        return _at(self.states.get(i) or self.graph.labels.get(i, f"a_{k}"), "t")

    def at(self, state: str) -> str:
        """The next value of a state."""
        return _at(state, "t")

    def expand(self, i: int) -> tuple[str, int]:
        """A product with a number needs no sign."""
        node = self.graph.nodes[i]
        if node.op == "mul" and self.graph.nodes[node.args[0]].op == "const":
            return f"{self.write(node.args[0], TERM)} \\, {self.write(node.args[1], ATOM)}", TERM
        return super().expand(i)

    def leaf(self, i: int) -> str:
        """An input, state, weight or number."""
        node = self.graph.nodes[i]
        if node.op == "const":
            return re.sub(r"e([+-])0*(\d+)", lambda m: rf" \cdot 10^{{{m[1].strip('+')}{m[2]}}}", f"{node.value:.6g}")
        if node.op == "count":
            return letter(node.name)
        if node.op == "param":
            return _at(node.name if node.name == node.part else f"{node.name}_{node.part}", "")
        return _at(("d" if node.op == "grad" else "") + node.name, "t-1" if node.op == "state" else "t")

    def brackets(self, text: str) -> str:
        """Parentheses that grow."""
        return rf"\left({text}\right)"

    def matrix(self, name: str, part: str) -> str:
        """One slice of a matrix of weights."""
        known = {"weight_ih": "W", "weight_hh": "R"}
        kind, extra = known.get(name, "W"), "" if name in known else f",{_plain(name.removeprefix('weight_'))}"
        return f"{kind}_{{{_plain(part)}{extra}}}"

    def transposed(self, name: str, part: str) -> str:
        """One slice of a matrix, transposed."""
        return rf"{self.matrix(name, part)}^\top"

    def vector(self, name: str, part: str) -> str:
        """One slice of a bias."""
        return f"b_{{{self.matrix(name.replace('bias', 'weight'), part)}}}"


def _plain(name: str) -> str:
    return name.replace("_", r"\_")


def _at(name: str, time: str) -> str:
    """A name with its lower index and the time: x_r at t is x_{r,t}."""
    base, *index = name.split("_")
    base = base if len(base) == 1 else rf"\mathrm{{{base}}}"
    lower = ",".join((*index, *([time] if time else [])))
    return f"{base}_{{{lower}}}" if lower else base


def latex(definition: Definition) -> str:
    """The equations as an `align*` environment."""
    lines = [f"  {left} &= {right}" for _, left, right in LatexWriter(definition).lines()]
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"
