"""A number to add to every state after every step, as a rewrite: its gradient is that of the state."""

from ..definition import Definition
from ..graph import Graph
from ..masks import mask, rewrite
from ..trace import Symbol


def with_perturbation(definition: Definition) -> Definition:
    """Add an input `add_{state}` for each state, which is added to its next value. The other states do not see it."""

    def end(graph: Graph, old: dict[str, Symbol], new: dict[str, Symbol]) -> dict[str, Symbol]:
        return {name: s + mask(graph, f"add_{name}", definition.states[name]) for name, s in new.items()}

    return rewrite(definition, end=end)
