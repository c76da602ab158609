"""Recurrent dropout as a rewrite of a step: it holds for every cell and every target."""

from dataclasses import replace

from ..definition import Definition
from ..graph import Graph
from ..masks import mask
from ..reach import operands
from ..trace import Symbol


def with_recurrent_dropout(definition: Definition, states: tuple[str, ...]) -> Definition:
    """Add an input `keep_{state}` for each of `states`, by which the state is multiplied on its way into the step.

    That is where it enters a dense product, also through elementwise work such as r * h (Gal & Ghahramani 2016). Past
    the products, as in z * h of a GRU or c of an LSTM, the state goes on as it is: a mask that is the same at all steps
    would let it grow without bound there. A state that enters no product is masked wherever it is read.
    """
    old = definition.graph
    graph, leaves = Graph(old.sizes), old.find("state")
    plain = {i: graph.add(old.nodes[i]) for i in (*old.find("input").values(), *leaves.values())}
    inside, masked = operands(old), dict(plain)  # the nodes that products see, and what they see
    for name in states:
        state = Symbol(graph, plain[leaves[name]])
        masked[leaves[name]] = (state * mask(graph, f"keep_{name}", definition.states[name])).index
        if leaves[name] not in inside:
            plain[leaves[name]] = masked[leaves[name]]

    for i, node in enumerate(old.nodes):
        if i not in plain:
            read = masked if node.op == "linear" else plain
            plain[i] = graph.add(replace(node, args=tuple(read[a] for a in node.args)))
            if i in inside:
                changed = replace(node, args=tuple(masked[a] for a in node.args))
                masked[i] = plain[i] if node.op == "linear" else graph.add(changed)
    graph.labels = {plain[i]: label for i, label in old.labels.items()}
    return replace(definition, results={name: plain[i] for name, i in definition.results.items()}, graph=graph)
