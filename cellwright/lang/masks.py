"""Rewrites of a step: for sequences of different lengths, for resets. They hold for every cell and every target.

Both add an input of size "one", a number per row and step that is 0 or 1. `where` selects, it does not multiply: a
value that is not finite on the side that is not taken does no harm.
"""

from collections.abc import Callable
from dataclasses import replace

from .definition import Definition
from .functions import where
from .graph import ONE, Graph, Node
from .trace import Symbol


def with_reset(definition: Definition) -> Definition:
    """Add the input `reset`: where it is 1, every state of the step before is taken as the initial one, else zero."""

    def start(graph: Graph, states: dict[str, Symbol]) -> dict[str, Symbol]:
        reset = mask(graph, "reset")
        learned = {
            state: Symbol(graph, graph.add(Node("param", size=definition.states[state], name=name, part=name)))
            for state, name in definition.initial.items()
        }
        return {name: where(reset, learned.get(name, 0.0), s) for name, s in states.items()}

    return rewrite(definition, start=start)


def with_valid(definition: Definition) -> Definition:
    """Add the input `valid`: where it is 0 (padding), the states stay as they were."""

    def end(graph: Graph, old: dict[str, Symbol], new: dict[str, Symbol]) -> dict[str, Symbol]:
        valid = mask(graph, "valid")
        return {name: where(valid, new[name], old[name]) for name in new}

    return rewrite(definition, end=end)


def mask(graph: Graph, name: str, size: str = ONE) -> Symbol:
    """A new input: a number per row, or one for each unit of a size."""
    return Symbol(graph, graph.add(Node("input", size=size, name=name)))


def rewrite(
    definition: Definition,
    start: Callable[[Graph, dict[str, Symbol]], dict[str, Symbol]] | None = None,
    end: Callable[[Graph, dict[str, Symbol], dict[str, Symbol]], dict[str, Symbol]] | None = None,
) -> Definition:
    """The same step between two additions: `start` changes the old states that it reads, `end` the new ones."""
    old = definition.graph
    graph = Graph(old.sizes)
    leaves = old.find("state")
    new = {i: graph.add(old.nodes[i]) for i in (*old.find("input").values(), *leaves.values())}
    before = {name: Symbol(graph, new[leaves[name]]) for name in definition.states}
    if start is not None:
        for name, symbol in start(graph, before).items():
            new[leaves[name]] = symbol.index
    for i, node in enumerate(old.nodes):
        if i not in new:
            new[i] = graph.add(replace(node, args=tuple(new[a] for a in node.args)))
    graph.labels = {new[i]: label for i, label in old.labels.items()}
    after = {name: Symbol(graph, new[i]) for name, i in definition.results.items()}
    if end is not None:
        after = end(graph, before, after)
    return replace(definition, results={name: s.index for name, s in after.items()}, graph=graph)
