"""Reverse-mode gradient of a step: from its graph to a larger graph that also holds the derivatives.

The forward nodes keep their numbers. For each state there is a leaf "grad", the gradient of its next value; the
results are the gradients of the inputs and of the states of the step before. Gradients of weights are not nodes: they
are sums over all steps and rows, so they are listed as pairs that one product after the loop turns into weights. The
gradient of a memory is left by the nodes `attend_t`.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ..errors import CellError
from .definition import Definition
from .graph import Graph, Node, check
from .ops import OPS
from .trace import Symbol


@dataclass(frozen=True)
class WeightGradient:
    """A share of the gradient of the weights `name`: for each slice, the sum over steps and rows of gradient x source.

    `gradients` has one node per slice of `parts`; `source` is the node that the matrix was applied to, None for a
    vector, whose gradient is the sum alone.
    """

    name: str
    parts: tuple[str, ...]
    gradients: tuple[int, ...]
    source: int | None


@dataclass(frozen=True)
class Gradient:
    """`graph`: forward and backward nodes; `inputs` and `states`: the gradient of each, None where there is none."""

    graph: Graph
    inputs: dict[str, int | None]
    states: dict[str, int | None]
    weights: tuple[WeightGradient, ...]


def differentiate(definition: Definition) -> Gradient:
    """The gradient of one step of a cell."""
    forward = definition.graph
    graph = Graph(forward.sizes, list(forward.nodes), dict(forward.labels))
    adjoint: dict[int, Symbol] = {}
    pending: dict[int, dict[str, list[tuple[str, Symbol]]]] = defaultdict(lambda: defaultdict(list))
    weights: dict[tuple[str, int | None], dict[str, Symbol]] = defaultdict(dict)

    def receive(i: int, g: Symbol | None) -> None:
        if g is not None:
            adjoint[i] = adjoint[i] + g if i in adjoint else g

    def share(name: str, part: str, g: Symbol, source: int | None = None) -> None:
        parts = weights[name, source]
        parts[part] = parts[part] + g if part in parts else g

    for state, result in definition.results.items():
        size = definition.states[state]
        receive(result, Symbol(graph, graph.add(Node("grad", size=size, name=state))))

    for i in reversed(range(len(forward.nodes))):
        # All products of one matrix with this value go back as a single transposed product.
        for matrix, uses in pending.pop(i, {}).items():
            parts = " ".join(part for part, _ in reversed(uses))
            turned = tuple(g.index for _, g in reversed(uses))
            node = Node("linear_t", turned, forward.nodes[i].size, name=matrix, part=parts)
            receive(i, Symbol(graph, graph.add(node)))
        if i not in adjoint:
            continue
        node, g = forward.nodes[i], adjoint[i]
        if node.op == "linear":
            (source,) = node.args
            pending[source][node.name].append((node.part, g))
            share(node.name, node.part, g, source)
            if node.bias:
                share(node.bias, node.part, g)
        elif node.op == "attend":
            (query,) = node.args
            turned_back = Node("attend_t", (g.index, query), forward.nodes[query].size, node.name, node.part)
            receive(query, Symbol(graph, graph.add(turned_back)))
        elif node.op == "param":
            share(node.name, node.part, g)
        elif node.op in OPS:
            y, args = Symbol(graph, i), [Symbol(graph, a) for a in node.args]
            shares: tuple[Any, ...] = OPS[node.op].derivative(g, y, *args)
            for a, arriving in zip(node.args, shares, strict=True):
                given = forward.nodes[a].op == "input" and forward.nodes[a].name != "x"  # a mask
                if forward.nodes[a].op not in ("const", "count") and not given:
                    receive(a, arriving)
        elif node.op == "linear_t":
            raise CellError("the language has no gradient of a gradient; use the reference target, whose autograd does")

    def gradients(kind: str) -> dict[str, int | None]:
        return {name: adjoint[i].index if i in adjoint else None for name, i in forward.find(kind).items()}

    check(graph, definition.params)
    shares = tuple(
        WeightGradient(name, tuple(reversed(parts)), tuple(g.index for g in reversed(parts.values())), source)
        for (name, source), parts in weights.items()
    )
    return Gradient(graph, gradients("input"), gradients("state"), shares)
