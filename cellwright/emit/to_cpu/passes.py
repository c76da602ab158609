"""From the stages of a plan to passes over memory: what each computes, and what passes from one to the next.

A pass goes over the units of one size: at most one dense product, then elementwise work on the result while it is in
registers. A look into a memory is a pass by itself. A value that another pass needs, that the plan saves, or that a
later product takes as its source goes through memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ...lang.graph import LEAVES, ONE, PRODUCTS, Graph
from ...lang.plan import Product, Stage


@dataclass
class Pass:
    """`nodes` in order of computation, over the units of `size`; `stores` those that go to memory."""

    size: str
    product: Product | None
    nodes: list[int]
    stores: list[int]
    lookup: bool = False  # its only node looks into a memory

    @property
    def results(self) -> tuple[int, ...]:
        """The results of the product."""
        return self.product.results if self.product else ()


def lower(graph: Graph, stages: Iterable[Stage], keep: Iterable[int]) -> list[Pass]:
    """The passes of a loop body; the nodes of `keep` are stored in any case."""
    stages, kept = list(stages), set(keep)
    sources = {i for s in stages if s.product for i in s.product.sources}
    sources |= {i for s in stages if s.lookup is not None for i in graph.nodes[s.lookup].args}
    # The gradient of a state comes from two sides; where it is needed whole, a pass of its own adds them up.
    whole = sorted(i for i in kept | sources if graph.nodes[i].op == "grad")
    passes = [Pass(graph.nodes[i].size, None, [], [i]) for i in whole]
    place = {i: k for k, i in enumerate(whole)}

    def first_fit(i: int, since: int) -> int:
        node = graph.nodes[i]
        size = graph.nodes[node.args[0]].size if node.op == "sum" else node.size
        at = since
        for a in underlying(graph, node.args):
            if a in place:
                # What comes out of a pass is whole only after it: for sums, look-ups, and for units of another pass.
                one = passes[place[a]]
                same = one.size == size and graph.nodes[a].op != "sum" and not one.lookup
                at = max(at, place[a] if same else place[a] + 1)
        while at < len(passes) and (passes[at].size != size or passes[at].lookup):
            at += 1
        if at == len(passes):
            passes.append(Pass(size, None, [], []))
        return at

    for stage in stages:
        since = max(len(passes) - 1, 0)
        if stage.product:
            size = graph.nodes[stage.product.results[0]].size
            if passes and _joins(graph, passes[-1], stage.product, size):
                passes[-1].product = stage.product
            else:
                passes.append(Pass(size, stage.product, [], []))
            since = len(passes) - 1
            place |= dict.fromkeys(stage.product.results, since)
        if stage.lookup is not None:
            passes.append(Pass(graph.nodes[stage.lookup].size, None, [stage.lookup], [], lookup=True))
            since = place[stage.lookup] = len(passes) - 1
        for i in stage.nodes:
            if single(graph, i):
                continue  # a number per row: computed where it is used
            at = first_fit(i, since)
            passes[at].nodes.append(i)
            place[i] = at
    for k, one in enumerate(passes):
        own = [*one.results, *one.nodes]
        later = {a for other in passes[k + 1 :] for a in inputs_of(graph, other)}
        one.stores += [i for i in own if i in kept or i in later or graph.nodes[i].op == "sum"]
    return passes


def _joins(graph: Graph, before: Pass, product: Product, size: str) -> bool:
    """Whether a pass without a product can do the work of this one too: the product does not wait for it."""
    made = {*before.nodes, *before.stores}
    sums = any(graph.nodes[i].op == "sum" for i in made)
    free = before.product is None and not before.lookup
    return free and before.size == size and not sums and made.isdisjoint(product.sources)


def single(graph: Graph, i: int) -> bool:
    """Whether a node is a number per row that follows from other such numbers."""
    node = graph.nodes[i]
    return node.size == ONE and node.op not in (*LEAVES, *PRODUCTS, "sum")


def underlying(graph: Graph, nodes: Iterable[int]) -> set[int]:
    """The nodes, with numbers per row replaced by what they follow from."""
    found, todo = set[int](), list(nodes)
    while todo:
        i = todo.pop()
        if single(graph, i):
            todo += graph.nodes[i].args
        else:
            found.add(i)
    return found


def used_by(graph: Graph, one: Pass) -> set[int]:
    """The nodes that the elementwise work of a pass takes from memory or from leaves."""
    own = {*one.results, *(i for i in one.nodes if graph.nodes[i].op != "sum")}
    return underlying(graph, (a for i in one.nodes for a in graph.nodes[i].args)) - own


def inputs_of(graph: Graph, one: Pass) -> set[int]:
    """The nodes that a pass takes from memory or from leaves."""
    own = {*one.results, *(i for i in one.nodes if graph.nodes[i].op != "sum")}
    return used_by(graph, one) | (set(one.product.sources if one.product else ()) - own)
