"""A plan, compiled for this machine: one kernel for each way in which it is called, made when first needed."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...lang.graph import LEAVES, LOOKUPS, ONE
from ...lang.plan import Plan, Stage, stages
from ..to_torch import beside_products
from . import build, outer
from .flows import flowing
from .kernel import Recipe
from .layout import Layout
from .machine import this_machine
from .memory import width_of
from .passes import Pass, inputs_of, lower, single
from .trial import settled


@dataclass
class Kernel:
    """A compiled loop: the address of its function, the order of its arguments, and what it stores."""

    address: int
    layout: Layout
    passes: list[Pass]


_kernels: dict[tuple[Hashable, ...], Kernel] = {}
_refusals: dict[Hashable, str | None] = {}
_late: dict[Hashable, tuple[str, ...]] = {}


def unsupported(plan: Plan) -> str | None:
    """Why a plan cannot run here, if so."""
    gradient = plan.gradient
    loop = {i for s in plan.forward.loop for i in s.members}
    back = {i for s in plan.backward.loop for i in s.members}
    if any(gradient.graph.nodes[i].size == ONE for i in (*plan.backward.kept, *plan.backward.saved)):
        return "single numbers per row that are wanted after the loop"
    if any(gradient.graph.nodes[i].op in LEAVES and gradient.graph.nodes[i].op != "grad" for i in plan.backward.kept):
        return "a gradient that is a constant"
    after = {a for s in plan.backward.after for i in s.nodes for a in gradient.graph.nodes[i].args}
    if not loop.isdisjoint(after):
        return "values of the loop that are wanted after it"
    products = [s.product for s in (*plan.forward.loop, *plan.backward.loop) if s.product]
    sources = {gradient.graph.nodes[i] for p in products for i in p.sources}
    if any(n.size == ONE or n.op in ("const", "count", "param") for n in sources):
        return "a product with a constant, or with single numbers per row"
    looks = [i for i, n in enumerate(gradient.graph.nodes) if n.op in LOOKUPS]
    queries = [gradient.graph.nodes[gradient.graph.nodes[i].args[-1]] for i in looks]
    if any(i not in {*loop, *back} for i in looks) or any(n.op in ("const", "count", "param") for n in queries):
        return "a look into a memory that no state has a part in"
    return None


class Program:
    """A plan, compiled for this machine when first used; one kernel for each way in which it is called."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.machine = flowing(plan), settled(this_machine())
        form = self._form()
        if form not in _late:
            _late[form] = () if unsupported(self.plan) else self._replaced_too_early()
        if _late[form]:
            self.plan = flowing(plan, _late[form])
            for name in ("kept", "loop_nodes"):  # those of the plan before
                vars(self).pop(name, None)
        self.form = self._form()
        if self.form not in _refusals:
            late = self._replaced_too_early() if _late[form] else ()
            again = f"the gradient of {' and '.join(late)} is needed after it has been replaced" if late else None
            _refusals[self.form] = unsupported(self.plan) or again
        self.refusal = _refusals[self.form]
        self._own: dict[tuple[Hashable, ...], Kernel] = {}
        self._read_before: dict[tuple[bool, bool], set[str]] = {}
        self.frames: dict[Hashable, Any] = {}  # by shape; made and used by `run`

    def _form(self) -> tuple[Hashable, ...]:
        """What kernels depend on: one serves every cell of the same form, whatever its sizes."""
        definition = self.plan.definition
        params = tuple((p.name, tuple(p.slices.items()), p.source) for p in definition.params.values())
        return (tuple(definition.graph.nodes), tuple(definition.results.items()), params, self.machine)

    def forward(self, training: bool, looked_up: bool, narrow: bool) -> Kernel:
        """The loop over time; for training, it also keeps what the way back needs."""
        key = ("forward", training, looked_up, narrow)
        if key not in self._own:
            self._own[key] = self._kernel(key, self._forward_passes(training))
        return self._own[key]

    def backward(self, looked_up: bool, narrow: bool) -> Kernel:
        """The loop back."""
        key = ("backward", True, looked_up, narrow)
        if key not in self._own:
            self._own[key] = self._kernel(key, self._backward_passes())
        return self._own[key]

    def before(self, training: bool, narrow: bool) -> Kernel:
        """What comes before the loop, for all inputs at once."""
        key = ("before", training, False, narrow)
        if key not in self._own:
            self._own[key] = self._kernel(key, self._before_passes(training))
        return self._own[key]

    def read_before(self, training: bool, narrow: bool) -> set[str]:
        """The inputs that this kernel reads."""
        key = training, narrow
        if key not in self._read_before:
            nodes = self.plan.definition.graph.nodes
            slots = (nodes[s.node] for s in self.before(training, narrow).layout.slots if s.node >= 0)
            self._read_before[key] = {node.name for node in slots if node.op == "input"}
        return self._read_before[key]

    def _before_passes(self, training: bool) -> list[Pass]:
        wanted = self._prepared & {*self.plan.forward.carried, *(self.needed_later if training else ())}
        return lower(self.plan.definition.graph, self.plan.forward.hoisted, sorted(wanted))

    def after(self, narrow: bool) -> Kernel:
        """What follows the loop back: the gradient of x, for all inputs at once."""
        key = ("after", True, False, narrow)
        if key not in self._own:
            self._own[key] = self._kernel(key, self._after_passes())
        return self._own[key]

    def _after_passes(self) -> list[Pass]:
        wanted = self.plan.gradient.inputs["x"]
        assert wanted is not None
        return lower(self.plan.gradient.graph, self.plan.backward.after, [wanted])

    @cached_property
    def finishes(self) -> bool:
        """Whether a kernel can do that: products of what the loop has kept."""
        back, wanted = self.plan.backward, self.plan.gradient.inputs["x"]
        made = {i for s in back.after if s.product for i in s.product.results}
        # The gradient of a state stands for a sum that only the loop can make.
        if any(self.plan.gradient.graph.nodes[i].op == "grad" for i in _sources(back.after)):
            return False
        plain = all(not s.nodes and s.product and set(back.kept).issuperset(s.product.sources) for s in back.after)
        return plain and made == {wanted}

    @cached_property
    def _prepared(self) -> set[int]:
        """The nodes that are computed before the loop."""
        graph = self.plan.definition.graph
        return {i for s in self.plan.forward.hoisted for i in s.members if not single(graph, i)}

    @cached_property
    def needed_later(self) -> set[int]:
        """Those of them that the way back needs too."""
        back, graph = self.plan.backward, self.plan.gradient.graph
        used = [*back.recomputed, *(i for s in (*back.loop, *back.after) for i in s.members)]
        return self._prepared & {*(a for i in used for a in graph.nodes[i].args), *(w.source for w in back.weights)}

    @cached_property
    def prepares(self) -> bool:
        """Whether a kernel can do what comes before the loop: products of inputs and elementwise work."""
        graph, stages = self.plan.definition.graph, self.plan.forward.hoisted
        timed = graph.depends(graph.find("input").values())
        sources = {i for s in stages if s.product for i in s.product.sources}
        plain = all(i in timed and graph.nodes[i].size != ONE for i in sources)
        return plain and all(
            i in timed and graph.nodes[i].op != "sum" and graph.nodes[i].size != ONE for i in self._prepared
        )

    def preparer(self, floating: bool, rows: int) -> str:
        """Who computes what comes before the loop (`frame.Shape`), for x of floats or integers in [T, B] = `rows`."""
        if not floating and not self._one_hot and self.plan.definition.input_size <= 2 * rows:
            return "table"
        return "kernel" if floating and self.prepares else "torch"

    @cached_property
    def _one_hot(self) -> bool:
        graph = self.plan.definition.graph
        return beside_products(graph, graph.find("input")["x"])

    def columns(self, nodes: Iterable[int]) -> tuple[dict[int, int], int]:
        """Where each node begins in rows that hold them side by side, and the width of these rows."""
        place, at = {}, 0
        for i in nodes:
            place[i], at = at, at + self.width(i)
        return place, at

    def width(self, i: int) -> int:
        """Numbers of a row of a node in memory."""
        return width_of(self.units(i), self.machine)

    def units(self, i: int) -> int:
        """Numbers of a row of a node."""
        graph = self.plan.gradient.graph  # begins with all nodes of the forward graph
        return graph.sizes[graph.nodes[i].size]

    def _forward_passes(self, training: bool) -> list[Pass]:
        plan = self.plan
        keep = {*plan.definition.results.values(), *(self.kept if training else ())}
        return lower(plan.definition.graph, plan.forward.loop, keep)

    def _backward_passes(self) -> list[Pass]:
        plan = self.plan
        # What was computed before the loop is there still.
        given = set(self.kept) | (set(range(len(plan.definition.graph.nodes))) - self.loop_nodes)
        return lower(plan.gradient.graph, [*_recompute(plan, given), *plan.backward.loop], plan.backward.kept)

    def _replaced_too_early(self) -> tuple[str, ...]:
        """The gradient of a state is replaced while the step goes back: the states whose old one a later pass wants."""
        graph, passes, found = self.plan.gradient.graph, self._backward_passes(), []
        for name, leaf in graph.find("grad").items():
            made = next(k for k, p in enumerate(passes) if self.plan.gradient.states[name] in {*p.nodes, *p.results})
            if any(leaf in {*inputs_of(graph, p), *p.stores} for p in passes[made + 1 :]):
                found.append(name)
        return tuple(found)

    def narrowed(self, kind: str) -> frozenset[int]:
        """The nodes that a kernel also stores as operands of products in bfloat16."""
        plan = self.plan
        if kind == "after":
            return frozenset()
        if kind == "backward":
            back = plan.backward
            late = {i for s in back.after if s.product for i in s.product.sources}
            late |= {i for w in back.weights if w.source is not None for i in w.gradients}
            return frozenset(_sources(back.loop) | (late & set(back.kept)))
        graph, results = plan.definition.graph, plan.definition.results
        made = {graph.find("state")[name]: i for name, i in results.items()}
        sources = _sources(plan.forward.loop if kind == "forward" else plan.forward.hoisted)
        return frozenset(made.get(i, i) for i in sources if graph.nodes[i].op != "input")

    def source(self) -> dict[str, str]:
        """What training on float32 inputs compiles, by what it does: the text of each module."""
        found = {}
        if self.prepares:
            found["before the loop"] = self._recipe(("before", True, False, False), self._before_passes(True)).text()
        found["forward"] = self._recipe(("forward", True, False, False), self._forward_passes(True)).text()
        found["back"] = self._recipe(("backward", True, False, False), self._backward_passes()).text()
        if self.finishes:
            found["after the loop"] = self._recipe(("after", True, False, False), self._after_passes()).text()
        found["gradients of the weights"] = outer.text(self.machine)
        return found

    def _kernel(self, key: tuple[Hashable, ...], passes: list[Pass]) -> Kernel:
        whole = (self.form, *key)
        if whole not in _kernels:
            recipe = self._recipe(key, passes)
            _kernels[whole] = Kernel(build.load(recipe.key(), recipe.text, self.machine), recipe.layout, passes)
        return _kernels[whole]

    def _recipe(self, key: tuple[Hashable, ...], passes: list[Pass]) -> Recipe:
        """What a kernel is made from."""
        plan, (kind, _, looked_up, narrow) = self.plan, key
        graph = plan.gradient.graph if kind in ("backward", "after") else plan.definition.graph
        flows = frozenset(i for i in plan.gradient.states.values() if i is not None and kind == "backward")
        chosen = self.tabled if looked_up else frozenset()
        before = frozenset(range(len(plan.definition.graph.nodes))) - self.loop_nodes
        also = self.narrowed(str(kind)) if narrow else None
        return Recipe(graph, passes, self.machine, chosen, flows, before, also)

    @cached_property
    def looks(self) -> bool:
        """Whether the equations look into a memory."""
        return any(n.op == "attend" for n in self.plan.definition.graph.nodes)

    @cached_property
    def loop_nodes(self) -> set[int]:
        """The nodes of the forward loop."""
        return {i for s in self.plan.forward.loop for i in s.members}

    @cached_property
    def kept(self) -> list[int]:
        """What a training run stores at every step besides the states: saved values and sources of later products."""
        loop = self.loop_nodes - set(self.plan.definition.results.values())
        sources = {s.product.sources[0] for s in self.plan.forward.loop if s.product}
        return sorted((set(self.plan.backward.saved) | sources) & loop)

    @cached_property
    def timed(self) -> list[int]:
        """The nodes outside of the loop that differ from step to step, but for the inputs themselves."""
        graph = self.plan.definition.graph
        outside = graph.depends(graph.find("input").values()) - self.loop_nodes
        made = {i for s in self.plan.forward.hoisted for i in s.members}
        return sorted(outside & made)

    @cached_property
    def tabled(self) -> frozenset[int]:
        """The nodes outside of the loop that follow from x: for integers, rows of a table."""
        graph = self.plan.definition.graph
        x = graph.depends([graph.find("input")["x"]])
        return frozenset(i for i in x - self.loop_nodes if graph.nodes[i].op != "input")


def _sources(stages: tuple[Stage, ...]) -> set[int]:
    return {i for s in stages if s.product for i in s.product.sources}


def _recompute(plan: Plan, given: set[int]) -> tuple[Stage, ...]:
    return stages(plan.gradient.graph, [i for i in plan.backward.recomputed if i not in given])
