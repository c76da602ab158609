"""The arguments of a kernel: which places in memory its passes read and write, and in which order they are given."""

from dataclasses import dataclass, field

from ...lang.graph import Graph
from ...lang.plan import Product
from .passes import Pass, inputs_of, used_by

GRANULE = 4  # blocks of units that stay together on one thread, and the most in a tile
DEEP = 16  # pairs of the depth of a product that a tile of AMX holds
# The head of the arguments; then one entry per size; per product its panel, the row stride of its matrix and the
# address of each part's rows; per slot its address, strides of row and step, and which shift of rows applies.
HEAD = (
    "steps",
    "rows",
    "by_units",  # whether threads share the units (else the rows)
    "barrier",
    "thread_number",  # the functions to ask
    "thread_count",
    "yield_now",
    "ids",
    "ids_step",
    "table",  # of rows per thread and step, when sequences have lengths; else 0
    "packed",  # whether the panels are filled already
)
STILL, NOW, BEFORE = 0, 1, 2  # shifts: none, to the rows of this step, to those of the step before


@dataclass(frozen=True)
class Slot:
    """A place in memory: of a `node` of the graph, in float32 or as an operand of products in bfloat16 ("narrow"); of
    a slice `part` of the bias `name`; for the gradient of a state, what comes from outside ("outside") and what
    comes from the step before ("carried"); or of what a look-up needs besides (`of_lookup`)."""

    node: int
    name: str = ""
    part: str = ""


@dataclass
class Layout:
    """The order of a kernel's arguments after the head."""

    sizes: list[str] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)


def blocks_per_tile(product: Product) -> int:
    """Neighbouring blocks of units in one tile: enough accumulators also for products of one or two parts."""
    return {1: 4, 2: 2}.get(len(product.results), 1)


def of_lookup(graph: Graph, i: int) -> list[Slot]:
    """What a look into a memory reads and writes besides its arguments and its result.

    The memory itself, the number of positions of each row, and the weights, which the way forward makes; the way back
    reads their gradient from outside ("seed"), needs room for the scores' and adds to the gradients of the memory.
    """
    tensors = ["keys", "values", *(["energy"] if graph.nodes[i].part == "additive" else [])]
    back = ["seed", "scores", *(f"of {name}" for name in tensors)] if graph.nodes[i].op == "attend_t" else []
    return [Slot(i, name) for name in (*tensors, "positions", "weights", *back)]


def lay_out(graph: Graph, passes: list[Pass], carried: frozenset[int], narrow: frozenset[int] | None) -> Layout:
    """The layout of a kernel; for `carried` and `narrow` see `kernel.emit`."""
    layout = Layout()

    def size(name: str) -> None:
        if name not in layout.sizes:
            layout.sizes.append(name)

    for one in passes:
        read = set(one.product.sources) if one.product else set()
        kept = inputs_of(graph, one) | set(one.stores)
        if narrow is not None:
            kept -= read - used_by(graph, one) - set(one.stores)
            made = narrow & {*one.nodes, *one.results, *one.stores}
            layout.slots += [s for i in sorted(read | made) if (s := Slot(i, "narrow")) not in layout.slots]
        nodes = kept | (carried & {*one.nodes, *one.results})
        size(one.size)
        if one.lookup:
            for i in graph.nodes[one.nodes[0]].args:
                size(graph.nodes[i].size)
            size(graph.nodes[one.nodes[0]].name)
            layout.slots += of_lookup(graph, one.nodes[0])
        if one.product:
            layout.products.append(one.product)
            for i in one.product.sources:
                size(graph.nodes[i].size)
            if one.product.bias:
                layout.slots += [Slot(-1, one.product.bias, part) for part in one.product.parts]
        for i in sorted(nodes):
            if graph.nodes[i].op == "count":
                size(graph.nodes[i].name)
            wanted = [Slot(i)]
            if graph.nodes[i].op == "grad":
                wanted = [Slot(i, "outside"), Slot(i, "carried")]
                wanted += [Slot(i)] if any(i in p.stores for p in passes) else []
            elif i in carried:
                wanted = [Slot(i, "carried"), *([Slot(i)] if i in kept else [])]
            elif graph.nodes[i].op in ("const", "count"):
                wanted = []
            layout.slots += [slot for slot in wanted if slot not in layout.slots]
    return layout
