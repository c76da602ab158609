"""The plan of a cell: what every target does with the equations, and in which order.

Forward. What depends on no state is *hoisted* out of time: computed for all steps at once, its dense products as one
large product. The rest is a loop of *stages*, each with at most one recurrent product and the elementwise and row work
that becomes possible with it.

Backward. The values that derivatives need are *saved* by the forward loop, or *recomputed* from those; the loop runs
back through its own stages; gradients of inputs and weights are left for *after* the loop, one product over all steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .definition import Definition
from .grad import Gradient, WeightGradient, differentiate
from .graph import LEAVES, LOOKUPS, PRODUCTS, Graph
from .save import choose_saved


@dataclass(frozen=True)
class Product:
    """One dense product. Forward: rows `parts` of `matrix` times the node `sources[0]`, one result per part.

    Transposed: the same rows, transposed, times all `sources`, one per part; one result.
    """

    matrix: str
    parts: tuple[str, ...]
    sources: tuple[int, ...]
    results: tuple[int, ...]
    bias: str = ""
    transposed: bool = False


@dataclass(frozen=True)
class Stage:
    """At most one product or one look into a memory, then elementwise and row operations in order of computation."""

    product: Product | None
    nodes: tuple[int, ...]
    lookup: int | None = None

    @property
    def members(self) -> tuple[int, ...]:
        """All nodes that the stage computes."""
        first = () if self.lookup is None else (self.lookup,)
        return (*(self.product.results if self.product else first), *self.nodes)


@dataclass(frozen=True)
class Forward:
    """`hoisted` stages run once for all steps, `loop` stages at every step; `carried` nodes pass from one to other."""

    hoisted: tuple[Stage, ...]
    loop: tuple[Stage, ...]
    carried: tuple[int, ...]


@dataclass(frozen=True)
class Backward:
    """How the loop runs back.

    saved: forward nodes that must be stored for every step (states and inputs are there anyway).
    recomputed: forward nodes that are computed again from saved ones, states and inputs.
    loop: the stages at every step, last step first; `kept` nodes of it are stored for what comes after.
    after: stages that run once for all steps: gradients of the inputs.
    weights: gradients of weights, each a product (or a sum) over all steps.
    """

    saved: tuple[int, ...]
    recomputed: tuple[int, ...]
    loop: tuple[Stage, ...]
    kept: tuple[int, ...]
    after: tuple[Stage, ...]
    weights: tuple[WeightGradient, ...]


@dataclass(frozen=True)
class Plan:
    """The definition with its forward and, on demand, its backward plan."""

    definition: Definition

    @cached_property
    def forward(self) -> Forward:
        """Hoisted work and the loop."""
        return plan_forward(self.definition)

    @cached_property
    def gradient(self) -> Gradient:
        """The derivative graph."""
        return differentiate(self.definition)

    @cached_property
    def backward(self) -> Backward:
        """Saved values, the loop back, and what comes after it."""
        return plan_backward(self.definition, self.gradient)


def stages(graph: Graph, nodes: Iterable[int]) -> tuple[Stage, ...]:
    """Order `nodes` into stages; whatever else they need is there already.

    Products of one matrix with one value are one product. A node waits for the last product that it depends on.
    """
    todo = [i for i in nodes if graph.nodes[i].op not in LEAVES]
    inside = set(todo)
    large = (*PRODUCTS, *LOOKUPS)
    level: dict[int, int] = {}  # of those on the longest way to the node
    for i in todo:
        level[i] = max((level[a] for a in graph.nodes[i].args if a in inside), default=0)
        level[i] += graph.nodes[i].op in large
    groups: dict[tuple[object, ...], list[int]] = {}
    for i in todo:
        node = graph.nodes[i]
        if node.op in large:
            groups.setdefault((level[i], node.op, node.name, node.args, bool(node.bias)), []).append(i)
    order = sorted(groups, key=lambda key: (key[0], groups[key][0]))
    stage_of = {i: k for k, key in enumerate(order, 1) for i in groups[key]}
    for i in todo:
        if i not in stage_of:
            stage_of[i] = max((stage_of[a] for a in graph.nodes[i].args if a in inside), default=0)
    result = []
    for k in range(len(order) + 1):
        rest = tuple(i for i in todo if stage_of[i] == k and graph.nodes[i].op not in large)
        first = groups[order[k - 1]] if k else []
        if first and graph.nodes[first[0]].op in LOOKUPS:
            result.append(Stage(None, rest, first[0]))
        elif first or rest:
            result.append(Stage(_product(graph, first) if first else None, rest))
    return tuple(result)


def _product(graph: Graph, members: list[int]) -> Product:
    node = graph.nodes[members[0]]
    if node.op == "linear_t":
        return Product(node.name, tuple(node.part.split()), node.args, tuple(members), transposed=True)
    return Product(node.name, tuple(graph.nodes[i].part for i in members), node.args, tuple(members), bias=node.bias)


def plan_forward(definition: Definition) -> Forward:
    """Split the step into what is hoisted and the stages of the loop."""
    graph = definition.graph
    recurrent = graph.depends(graph.find("state").values())
    needed = graph.reachable(definition.results.values())
    loop = [i for i in needed if i in recurrent]
    hoisted = [i for i in needed if i not in recurrent]
    used = {a for i in loop for a in graph.nodes[i].args} | set(definition.results.values())
    carried = tuple(i for i in hoisted if i in used and graph.nodes[i].op not in ("param", "const", "count"))
    return Forward(stages(graph, hoisted), stages(graph, loop), carried)


def plan_backward(definition: Definition, gradient: Gradient) -> Backward:
    """Decide what is saved, and order the loop back and what follows it."""
    graph = gradient.graph
    known = len(definition.graph.nodes)  # forward nodes have the numbers below
    chain = graph.reachable(i for i in gradient.states.values() if i is not None)
    inputs = graph.reachable(i for i in gradient.inputs.values() if i is not None)
    pairs = graph.reachable(g for w in gradient.weights for g in w.gradients)
    loop = {i for i in chain if i >= known}
    late = {i for i in (*inputs, *pairs) if i >= known} - loop
    # Elementwise work for the weights' gradients is done in the loop, where its arguments are; products wait.
    waiting = graph.depends(i for i in late if graph.nodes[i].op == "linear_t") & late
    loop |= late - waiting
    after = sorted(waiting)
    results = {g for w in gradient.weights for g in w.gradients} | {
        i for i in gradient.inputs.values() if i is not None
    }
    later = {a for i in after for a in graph.nodes[i].args} | results
    kept = tuple(sorted(i for i in loop if i in later))

    sources = {w.source for w in gradient.weights if w.source is not None}
    wanted = {a for i in (*loop, *after) for a in graph.nodes[i].args if a < known} | sources
    saved, recomputed = choose_saved(definition.graph, set(definition.results.values()), wanted)
    back = [i for i in sorted(loop) if graph.nodes[i].op != "grad"]
    return Backward(saved, recomputed, stages(graph, back), kept, stages(graph, after), gradient.weights)
