"""Layer norm as a rewrite of a step (Ba, Kiros & Hinton 2016): it holds for every cell and every target."""

from dataclasses import replace

from ...errors import OptionError
from ..definition import Definition
from ..graph import Graph, Node, Param
from ..trace import Symbol, standardised


def with_layer_norm(definition: Definition, eps: float = 1e-5) -> Definition:
    """Every dense product W v + b becomes gain * (W v - mean) / sqrt(variance + eps) + b, slice by slice.

    Mean and variance are those of the units of a slice (a gate), so that W x and R h are normalised apart, as in
    the paper. `gain_{matrix}` starts at one; the bias is the paper's shift. States stay as the cell makes them.
    """
    old = definition.graph
    graph, params = Graph(old.sizes), dict(definition.params)
    new: dict[int, int] = {}
    for i, node in enumerate(old.nodes):
        moved = replace(node, args=tuple(new[a] for a in node.args))
        if node.op != "linear":
            new[i] = graph.add(moved)
            continue
        name = "gain_" + node.name.removeprefix("weight_")
        if name in definition.params:
            raise OptionError(f"got layer_norm for {definition.name}, which has weights named {name} already")
        slices = definition.params[node.name].slices
        params[name] = Param(name, slices, None, dict.fromkeys(slices, 1.0), random=False)
        (unit,) = standardised([Symbol(graph, graph.add(replace(moved, bias="")))], eps)
        value = unit * Symbol(graph, graph.add(Node("param", size=node.size, name=name, part=node.part)))
        if node.bias:
            value = value + Symbol(graph, graph.add(Node("param", size=node.size, name=node.bias, part=node.part)))
        new[i] = value.index
    graph.labels = {new[i]: label for i, label in old.labels.items()}
    results = {name: new[i] for name, i in definition.results.items()}
    return replace(definition, results=results, params=params, graph=graph)
