"""Attention over a memory as a rewrite of a step: it holds for every cell and every target."""

from dataclasses import replace

from ..definition import Definition
from ..graph import Graph, Node, Param

QUERY = "attention.query"  # no cell can have declared weights of this name


def with_attention(definition: Definition, score: str, units: int, memory_size: int) -> Definition:
    """Each x_t becomes x_t + [0; c_t]; the context c_t is what the output before the step finds in a memory.

    It has `memory_size` features. Where x_t ends with as many zeros, the sum is [x_t; c_t].

    score: "additive", with a query W h of `units` and the weights W `QUERY`; "dot": the query is h.
    """
    old = definition.graph
    graph, params = Graph(old.sizes | {"attention_size": units, "memory_size": memory_size}), dict(definition.params)
    first = next(iter(definition.states))
    x, h = (graph.add(old.nodes[old.find(op)[name]]) for op, name in (("input", "x"), ("state", first)))
    if score == "additive":
        params[QUERY] = Param(QUERY, {"query": "attention_size"}, definition.states[first])
        h = graph.add(Node("linear", (h,), "attention_size", QUERY, "query"))
    context = graph.add(Node("attend", (h,), "input_size", "memory_size", score))
    new = {old.find("input")["x"]: graph.add(Node("add", (x, context), "input_size"))}
    for i, node in enumerate(old.nodes):
        if i not in new:
            new[i] = graph.add(replace(node, args=tuple(new[a] for a in node.args)))
    graph.labels = {context: "context"} | {new[i]: label for i, label in old.labels.items()}
    results = {name: new[i] for name, i in definition.results.items()}
    return replace(definition, results=results, params=params, graph=graph)
