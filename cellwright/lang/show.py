"""A cell for people to read: its equations, its weights and its plan as text."""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from .definition import Definition
from .graph import ONE, PRODUCTS, Graph
from .plan import Plan, Product, Stage
from .trace import letter

# How tightly an expression holds together; what is looser than its place asks for gets parentheses.
LOOSE, SUM, TERM, SIGN, ATOM = range(-1, 4)


class Writer:
    """Writes nodes as equations. A node has a line of its own when it is a result, named, or used more than once."""

    spelling: ClassVar[dict[str, str]] = {
        "add": "{} + {}",
        "sub": "{} - {}",
        "mul": "{} * {}",
        "div": "{} / {}",
        "neg": "-{}",
        "less": "({} < {})",
        "abs": "|{}|",
        "sum": "sum({})",
        "spread": "{}",
    }
    # The place each argument stands in, and what the whole is, where it is not "inside parentheses" and an atom.
    places: ClassVar[dict[str, tuple[tuple[int, ...], int]]] = {
        "add": ((SUM, SUM), SUM),  # a + (b + c) reads as a + b + c
        "sub": ((SUM, TERM), SUM),
        "mul": ((TERM, SIGN), TERM),
        "div": ((TERM, ATOM), TERM),
        "neg": ((SIGN,), SIGN),
        "spread": ((ATOM,), ATOM),
    }

    def __init__(self, definition: Definition, graph: Graph | None = None, roots: tuple[int, ...] = ()) -> None:
        self.definition, self.graph = definition, graph or definition.graph
        self.states: dict[int, str] = {}
        for state, i in definition.results.items():
            if self.graph.nodes[i].args:  # a leaf keeps its name
                self.states.setdefault(i, state)
        self.roots = roots or tuple(definition.results.values())
        self.order = self.graph.reachable(self.roots)
        uses = Counter(a for i in self.order for a in set(self.graph.nodes[i].args))
        for i in self.order:
            if self.graph.nodes[i].op == "spread":
                uses[self.graph.nodes[i].args[0]] += uses[i] - 1  # it has no line: who uses it uses the number
        self.own = [i for i in self.order if self._has_line(i, uses[i])]
        self.names = {i: self.name(i, k) for k, i in enumerate(self.own, 1)}

    def _has_line(self, i: int, uses: int) -> bool:
        node = self.graph.nodes[i]
        if i in self.roots and node.args:
            return True
        if node.op in ("input", "state", "param", "const", "count", "grad", "spread"):
            return False
        return uses > 1 or (i in self.graph.labels and node.op not in PRODUCTS)

    def name(self, i: int, k: int) -> str:
        """What a line's left side is called."""
        if i in self.states:
            return self.at(self.states[i])
        return self.graph.labels.get(i, f"a{k}")

    def lines(self) -> list[tuple[int, str, str]]:
        """(node, left side, right side) of each equation, in order."""
        lines = [(i, self.names[i], self.expand(i)[0]) for i in self.own]
        for state, i in self.definition.results.items() if self.graph is self.definition.graph else ():
            if self.states.get(i) != state:
                lines.append((i, self.at(state), self.write(i)))
        return lines

    def at(self, state: str) -> str:
        """The next value of a state."""
        return f"{state}[t]"

    def write(self, i: int, place: int = SUM) -> str:
        """The node as it stands in a place of an expression."""
        if i in self.names:
            return self.names[i]
        text, holds = self.expand(i)
        return text if holds >= place else self.brackets(text)

    def expand(self, i: int) -> tuple[str, int]:
        """The expression that computes the node, and how tightly it holds together."""
        node = self.graph.nodes[i]
        if node.op == "linear":
            text = f"{self.matrix(node.name, node.part)} {self.write(node.args[0], ATOM)}"
            if not node.bias:
                return text, TERM
            return f"{text} + {self.vector(node.bias, node.part)}", SUM
        if node.op == "linear_t":
            turned = [
                f"{self.transposed(node.name, part)} {self.write(a, ATOM)}"
                for part, a in zip(node.part.split(), node.args, strict=True)
            ]
            return " + ".join(turned), SUM if len(turned) > 1 else TERM
        if not node.args:
            return self.leaf(i), LOOSE if node.value < 0 else ATOM
        places, holds = self.places.get(node.op, ((SUM,) * len(node.args), ATOM))
        texts = [self.write(a, place) for a, place in zip(node.args, places, strict=True)]
        return self.spelling.get(node.op, f"{node.op}({', '.join(['{}'] * len(texts))})").format(*texts), holds

    def leaf(self, i: int) -> str:
        """An input, state, weight or number."""
        node = self.graph.nodes[i]
        return {
            "input": f"{node.name}[t]",
            "state": f"{node.name}[t-1]",
            "param": node.name if node.name == node.part else f"{node.name}.{node.part}",
            "const": f"{node.value:.10g}",
            "count": letter(node.name),
            "grad": f"d{node.name}[t]",
        }[node.op]

    def brackets(self, text: str) -> str:
        """Parentheses around an expression."""
        return f"({text})"

    def matrix(self, name: str, part: str) -> str:
        """One slice of a matrix of weights."""
        return f"{_symbol(name)}_{part}"

    def transposed(self, name: str, part: str) -> str:
        """One slice of a matrix, transposed."""
        return f"{self.matrix(name, part)}'"

    def vector(self, name: str, part: str) -> str:
        """One slice of a bias."""
        return f"{_symbol(name)}_{part}"


def _symbol(name: str) -> str:
    """W and R for the matrices of input and state, as papers have it; bW and bR for their biases."""
    known = {"weight_ih": "W", "weight_hh": "R", "bias_ih": "bW", "bias_hh": "bR"}
    return known.get(name, name.replace("weight_", "W").replace("bias_", "b"))


def text(definition: Definition) -> str:
    """The equations, weights and plan of a cell, as text for a terminal."""
    plan, writer = Plan(definition), Writer(definition)
    sizes = {letter(k): v for k, v in definition.sizes.items() if k != ONE}
    states = ", ".join(f"{name} [{letter(size)}]" for name, size in definition.states.items())
    options = ", ".join(f"{k}={v!r}" for k, v in definition.options.items()) or "none"
    return "\n".join(
        [
            definition.name,
            f"  input x [I]; states {states}; the output is {next(iter(definition.states))}",
            f"  options: {options}",
            "",
            "equations",
            *_aligned([(left, "= " + right) for _, left, right in writer.lines()]),
            "",
            f"weights, with {', '.join(f'{k} = {v}' for k, v in sizes.items())}",
            *_weights(definition),
            "",
            "forward",
            *_forward(plan),
            "",
            "backward",
            *_backward(plan, writer),
        ]
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max((len(row[k]) for row in rows), default=0) for k in range(max(map(len, rows), default=0))]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() for row in rows]


def _weights(definition: Definition) -> list[str]:
    rows, total = [], 0
    for param in definition.params.values():
        counts = Counter(param.slices.values())
        height = " + ".join(f"{n if n > 1 else ''}{letter(size)}" for size, n in counts.items())
        shape = param.shape(definition.sizes)
        numbers = 1
        for n in shape:
            numbers *= n
        total += numbers
        width = f", {letter(param.source)}{f' / {param.heads}' * (param.heads > 1)}" if param.source else ""
        slices = "" if list(param.slices) == [param.name] else f"{_symbol(param.name)}: {' '.join(param.slices)}"
        rows.append((param.name, f"[{height}{width}]", f"{numbers:,}", slices))
    return [*_aligned(rows), f"  {total:,} parameters"]


def _forward(plan: Plan) -> list[str]:
    rows = [("before the loop", _product(plan, s.product)) for s in plan.forward.hoisted if s.product]
    count = sum(1 for s in plan.forward.loop if s.product)
    for k, product in enumerate((s.product for s in plan.forward.loop if s.product), 1):
        rows.append((f"each step, {k} of {count}", _product(plan, product)))
    if not count:
        rows.append(("each step", "no product with a state: elementwise work only"))
    return _aligned(rows)


def _backward(plan: Plan, writer: Writer) -> list[str]:
    back, graph = plan.backward, plan.definition.graph

    def listed(nodes: tuple[int, ...]) -> str:
        return ", ".join(writer.write(i) for i in nodes) or "nothing"

    def transposed(stages: tuple[Stage, ...]) -> str:
        return ", ".join(_product(plan, s.product) for s in stages if s.product) or "no product"

    sizes = Counter(graph.nodes[i].size for i in back.saved)
    numbers = " + ".join(f"{n if n > 1 else ''}{letter(size)}" for size, n in sizes.items()) or "0"
    used = {w.name for w in back.weights}
    weights = [name for name in plan.definition.params if name in used]
    return _aligned(
        [
            ("saved", f"{listed(back.saved)} ({numbers} numbers per step and row; the states are kept anyway)"),
            ("recomputed", listed(back.recomputed)),
            ("each step", transposed(back.loop)),
            ("after the loop", transposed(back.after)),
            ("", f"one product or sum over all steps for each of {', '.join(weights) or 'no weights'}"),
        ]
    )


def _product(plan: Plan, product: Product) -> str:
    param = plan.definition.params[product.matrix]
    rows = Counter(param.slices[p] for p in product.parts)
    height = " + ".join(f"{n if n > 1 else ''}{letter(size)}" for size, n in rows.items())
    width = letter(param.source or ONE)
    turned = " transposed" if product.transposed else ""
    return f"{product.matrix} ({' '.join(product.parts)}){turned}: [{height}, {width}]"
