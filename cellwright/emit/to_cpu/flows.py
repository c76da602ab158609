"""Every state made to pass through the loop, forward and back, which is what the kernels are written for.

Some states do not: an output that no later step reads, or what is kept of an input for the next step. Their next value
becomes `where(0, old, new)`: the same value, but it is made in the loop, and so is the gradient of the old state. The
gradient of the new value then is a value of its own, which stays when the loop back replaces that of the state.
"""

from collections.abc import Iterable

from ...lang.functions import where
from ...lang.graph import Graph
from ...lang.masks import rewrite
from ...lang.plan import Plan
from ...lang.trace import Symbol


def flowing(plan: Plan, also: Iterable[str] = ()) -> Plan:
    """The plan, with every state made to pass through the loop. `also`: states that are treated so in any case."""
    apart = _apart(plan) | set(also)

    def end(graph: Graph, old: dict[str, Symbol], new: dict[str, Symbol]) -> dict[str, Symbol]:
        return {name: where(old[name].constant(0.0), old[name], s) if name in apart else s for name, s in new.items()}

    return Plan(rewrite(plan.definition, end=end)) if apart else plan


def _apart(plan: Plan) -> set[str]:
    """The states whose next value, or whose gradient, is not a value of the loop of their own."""
    results, flows = plan.definition.results, plan.gradient.states
    forward = {i for s in plan.forward.loop for i in s.members}
    back = {i for s in plan.backward.loop for i in s.members}

    def alone(name: str, values: dict[str, int | None] | dict[str, int]) -> bool:
        return list(values.values()).count(values[name]) == 1

    return {
        name
        for name in results
        if results[name] not in forward or flows[name] not in back or not alone(name, results) or not alone(name, flows)
    }
