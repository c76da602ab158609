"""Zoneout as a rewrite of a step (Krueger et al. 2017): units of a state keep their value of the step before."""

from ..definition import Definition
from ..functions import where
from ..graph import Graph
from ..masks import mask, rewrite
from ..trace import Symbol


def with_zoneout(definition: Definition, states: tuple[str, ...]) -> Definition:
    """Add an input `stay_{state}` for each of `states`: where it is 1, the unit stays as it was. For training."""

    def end(graph: Graph, old: dict[str, Symbol], new: dict[str, Symbol]) -> dict[str, Symbol]:
        stay = {name: mask(graph, f"stay_{name}", definition.states[name]) for name in states}
        return new | {name: where(stay[name], old[name], new[name]) for name in states}

    return rewrite(definition, end=end)


def with_expected_zoneout(definition: Definition, rates: dict[str, float]) -> Definition:
    """What zoneout gives on average: rate * old + (1 - rate) * new. For evaluation."""

    def end(graph: Graph, old: dict[str, Symbol], new: dict[str, Symbol]) -> dict[str, Symbol]:
        return new | {name: rate * old[name] + (1 - rate) * new[name] for name, rate in rates.items()}

    return rewrite(definition, end=end)
