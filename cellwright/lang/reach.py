"""Where the states of a step before go within a step: what wrappers that are asked for nothing special act on."""

from collections.abc import Mapping
from dataclasses import dataclass

from .graph import Graph, Param


@dataclass(frozen=True)
class Reach:
    """`read`: the states that the step sees at all. `multiplied`: those that enter a dense product, also through
    elementwise work such as r * h. `matrices`: the weights of the products that a state has a part in, and x has none,
    or through another product only."""

    read: tuple[str, ...]
    multiplied: tuple[str, ...]
    matrices: tuple[str, ...]

    @classmethod
    def of(cls, graph: Graph, params: Mapping[str, Param], results: Mapping[str, int]) -> "Reach":
        """Of the states of a graph, in their order."""
        leaves, inside = graph.find("state"), operands(graph)
        seen = {a for node in graph.nodes for a in node.args} | set(results.values())
        late = graph.depends(leaves.values())
        given = {graph.find("input")["x"]}
        for i, node in enumerate(graph.nodes):
            if node.op != "linear" and not given.isdisjoint(node.args):
                given.add(i)
        recurrent = {n.name for n in graph.nodes if n.op == "linear" and n.args[0] in late and n.args[0] not in given}
        return cls(
            tuple(name for name, i in leaves.items() if i in seen),
            tuple(name for name, i in leaves.items() if i in inside),
            tuple(name for name in params if name in recurrent),
        )


def operands(graph: Graph) -> set[int]:
    """What dense products are applied to, and the nodes that this follows from without another product."""
    found, todo = set[int](), [a for node in graph.nodes if node.op == "linear" for a in node.args]
    while todo:
        i = todo.pop()
        if i not in found:
            found.add(i)
            todo += [] if graph.nodes[i].op == "linear" else graph.nodes[i].args
    return found
