"""Clipping of states as a rewrite of a step (the cell clipping of Sak, Senior & Beaufays 2014)."""

from dataclasses import replace

from ..definition import Definition
from ..functions import clamp
from ..graph import LEAVES, Graph
from ..trace import Symbol


def with_state_clip(definition: Definition, limits: dict[str, float]) -> Definition:
    """Limit the next value of each state named in `limits` to [-limit, limit], as soon as it is computed.

    What else the step makes of that value sees it limited: h = o * tanh(c) of an LSTM follows from the limited c.
    """
    old = definition.graph
    graph = Graph(old.sizes)
    at = {definition.results[name]: limit for name, limit in limits.items()}
    new: dict[int, int] = {}
    after: dict[int, int] = {}
    for i, node in enumerate(old.nodes):
        new[i] = graph.add(replace(node, args=tuple(new[a] for a in node.args)))
        if i in at:
            after[i] = clamp(Symbol(graph, new[i]), -at[i], at[i]).index
            if node.op not in LEAVES:  # an input or an old state is limited only as the next state
                new[i] = after[i]
    graph.labels = {new[i]: label for i, label in old.labels.items()}
    results = {name: after[i] if name in limits else new[i] for name, i in definition.results.items()}
    return replace(definition, results=results, graph=graph)
