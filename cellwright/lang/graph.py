"""The graph of one step: a list of nodes in the order of their computation, and `check`, which says what is legal.

Sizes are names ("input_size", "hidden_size", ...), so that one graph serves every width; `sizes` gives them numbers.
The size "one" is a single number per row of the batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import CellError
from .ops import OPS

ONE = "one"
# Leaves: x and masks, states of the step before, vectors of weights, numbers, the number of units of a size,
# and (in gradients) the gradient of an output.
LEAVES = ("input", "state", "param", "const", "count", "grad")
# Dense products: rows `part` of the matrix `name`, times the argument, plus the same rows of `bias`; and transposed,
# where `part` names the rows that meet each argument.
PRODUCTS = ("linear", "linear_t")
# A look into a memory that is the same at all steps, and the way back. `attend` takes a query to a context of the size
# `name`, with the score `part`; it stands at the end of a row of zeros. `attend_t` takes the gradient of that row and
# the query to the gradient of the query, and leaves a share of that of the memory. For memories see
# `emit/attention.py`.
LOOKUPS = ("attend", "attend_t")
SCORES = ("additive", "dot")


@dataclass(frozen=True)
class Node:
    """One value of the step: `op` applied to the earlier nodes `args`, a row of `size` units."""

    op: str
    args: tuple[int, ...] = ()
    size: str = ONE
    name: str = ""
    part: str = ""
    bias: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Param:
    """A weight of the cell: [sum of its slices' sizes, source / heads] for a matrix, without `source` for a vector.

    `slices` maps each slice's name to its size, in order of rows. A slice starts at its value in `starts` (else 0),
    plus a random value where `random` is true. `heads`: each slice is so many blocks along the diagonal of a matrix
    [size, source] that is zero elsewhere; only the blocks are weights, and targets are given the whole.
    """

    name: str
    slices: dict[str, str]
    source: str | None = None
    starts: dict[str, float] = field(default_factory=dict)
    random: bool = True
    heads: int = 1

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """The shape of the tensor, for these sizes."""
        rows = sum(sizes[s] for s in self.slices.values())
        return (rows,) if self.source is None else (rows, sizes[self.source] // self.heads)

    def rows(self, part: str, sizes: dict[str, int]) -> tuple[int, int]:
        """First row and number of rows of one slice."""
        names = list(self.slices)
        before = names[: names.index(part)]
        return sum(sizes[self.slices[n]] for n in before), sizes[self.slices[part]]


@dataclass
class Graph:
    """Nodes in order of computation; equal nodes are stored once. `labels` are names for people, by node."""

    sizes: dict[str, int]
    nodes: list[Node] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    _index: dict[Node, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._index = {node: i for i, node in enumerate(self.nodes)}

    def add(self, node: Node) -> int:
        """Append a node, or find its equal; return its index."""
        if node not in self._index:
            self._index[node] = len(self.nodes)
            self.nodes.append(node)
        return self._index[node]

    def same_size(self, a: str, b: str) -> bool:
        """Whether two names of sizes stand for the same number of units."""
        return a == b or (ONE not in (a, b) and self.sizes[a] == self.sizes[b])

    def reachable(self, roots: Iterable[int]) -> list[int]:
        """The nodes that `roots` depend on, themselves included, in order of computation."""
        seen, todo = set(), list(roots)
        while todo:
            i = todo.pop()
            if i not in seen:
                seen.add(i)
                todo += self.nodes[i].args
        return sorted(seen)

    def depends(self, on: Iterable[int]) -> set[int]:
        """The nodes that depend on any node of `on`, those included."""
        found = set(on)
        for i, node in enumerate(self.nodes):
            if not found.isdisjoint(node.args):
                found.add(i)
        return found

    def find(self, op: str) -> dict[str, int]:
        """The leaves of one kind, by name."""
        return {node.name: i for i, node in enumerate(self.nodes) if node.op == op}


def same_values(one: Graph, nodes: Iterable[int], other: Graph, others: Iterable[int]) -> bool:
    """Whether nodes of two graphs are computed in the same way, in whatever order the graphs hold them."""
    both = Graph({})

    def places(graph: Graph, wanted: Iterable[int]) -> list[int]:
        found: list[int] = []
        for node in graph.nodes:
            found.append(both.add(replace(node, args=tuple(found[i] for i in node.args))))
        return [found[i] for i in wanted]

    return places(one, nodes) == places(other, others)


def check(graph: Graph, params: dict[str, Param], results: Iterable[int] = ()) -> None:
    """Raise CellError unless the graph is legal: known operations, earlier arguments, sizes and slices that fit."""

    def fail(i: int, why: str) -> None:
        raise CellError(f"node {i} ({graph.nodes[i].op}) of the graph is not legal: {why}")

    for i, node in enumerate(graph.nodes):
        sizes = [graph.nodes[a].size for a in node.args if 0 <= a < i]
        if len(sizes) != len(node.args):
            fail(i, f"its arguments {node.args} must stand before it")
        if node.size != ONE and node.size not in graph.sizes:
            fail(i, f"size {node.size!r} is none of {sorted(graph.sizes)}")
        if node.op in LEAVES:
            _check_leaf(graph, params, i, fail)
        elif node.op in PRODUCTS:
            _check_product(graph, params, i, sizes, fail)
        elif node.op in LOOKUPS:
            if len(sizes) != LOOKUPS.index(node.op) + 1 or ONE in (node.size, *sizes) or node.part not in SCORES:
                fail(i, f"it takes vectors and one of the scores {', '.join(SCORES)}")
            row = node.size if node.op == "attend" else sizes[0]
            if not 0 < graph.sizes.get(node.name, 0) <= graph.sizes[row]:
                fail(i, f"a context of the size {node.name!r} does not fit into a row of {row}")
        elif node.op in OPS:
            op = OPS[node.op]
            if len(sizes) != op.arity:
                fail(i, f"it takes {op.arity} arguments and has {len(sizes)}")
            if op.kind == "sum" and node.size != ONE:
                fail(i, "a sum over the units is one number")
            if op.kind == "spread" and sizes[0] != ONE:
                fail(i, f"it spreads one number, its argument has size {sizes[0]}")
            if op.kind == "elementwise" and not all(graph.same_size(s, node.size) for s in sizes):
                fail(i, f"its arguments have sizes {sizes}, its result {node.size}")
        else:
            fail(i, f"the operations are {', '.join(OPS)}")
    for r in results:
        if not 0 <= r < len(graph.nodes):
            raise CellError(f"result {r} is not a node of the graph of {len(graph.nodes)} nodes")


def _check_leaf(graph: Graph, params: dict[str, Param], i: int, fail: Any) -> None:
    node = graph.nodes[i]
    if node.args:
        fail(i, "a leaf has no arguments")
    if node.op == "param":
        if node.name not in params or params[node.name].source is not None:
            fail(i, f"there is no vector of weights named {node.name!r}")
        if params[node.name].slices.get(node.part) != node.size:
            fail(i, f"{node.name} has no slice {node.part!r} of size {node.size}")
    if node.op == "count" and node.name not in graph.sizes:
        fail(i, f"size {node.name!r} is none of {sorted(graph.sizes)}")


def _check_product(graph: Graph, params: dict[str, Param], i: int, sizes: list[str], fail: Any) -> None:
    node, matrix = graph.nodes[i], params.get(graph.nodes[i].name)
    if matrix is None or matrix.source is None:
        fail(i, f"there is no matrix named {node.name!r}")
        return
    parts = node.part.split()
    if not parts or not set(parts) <= set(matrix.slices):
        fail(i, f"{node.name} has the slices {', '.join(matrix.slices)}, not {node.part!r}")
    wide, narrow = [matrix.slices[p] for p in parts], [matrix.source]
    takes, gives = (narrow, wide) if node.op == "linear" else (wide, narrow)
    if len(gives) != 1 or len(takes) != len(sizes) or not all(map(graph.same_size, takes, sizes)):
        fail(i, f"{node.name} takes sizes {takes}, its arguments have {sizes}")
    if not graph.same_size(node.size, gives[0]):
        fail(i, f"{node.name} gives size {gives[0]}, the node has {node.size}")
    if node.bias and (node.bias not in params or params[node.bias].slices.get(node.part) != gives[0]):
        fail(i, f"there is no bias {node.bias!r} with the slice {node.part!r}")


_LARGEST = 2**24  # of a size; more is a damaged file rather than a cell


def check_cell(graph: Graph, params: dict[str, Param], states: dict[str, str], results: dict[str, int]) -> None:
    """Raise CellError unless a legal graph is the step of a cell: its sizes, inputs, states and results."""

    def need(legal: bool, what: str) -> None:
        if not legal:
            raise CellError(f"the graph is not a step of a cell: {what}")

    for name in ("input_size", "hidden_size"):
        need(name in graph.sizes, f"it has no {name}")
    for name, n in graph.sizes.items():
        need(1 <= n <= _LARGEST, f"{name} is {n}, expected 1 to {_LARGEST}")
    need(bool(states) and list(states) == list(results), f"its states are {list(states)}, its results {list(results)}")
    leaves = {n.name: n.size for n in graph.nodes if n.op == "state"}
    need(leaves == states, f"its states are {states}, those in the graph {leaves}")
    for state, i in results.items():
        need(graph.same_size(graph.nodes[i].size, states[state]), f"the next {state} has another size than {state}")
    inputs = {n.name: n.size for n in graph.nodes if n.op == "input"}
    need(inputs.get("x") == "input_size", "its input x has another size than input_size")
    need(not any(n.op in ("grad", "linear_t", "attend_t") for n in graph.nodes), "it holds nodes of a gradient")
    need(sum(n.op == "attend" for n in graph.nodes) < 2, "it looks into more than one memory")
    for param in params.values():
        need(bool(param.slices), f"{param.name} has no slices")
        units = [graph.sizes[size] for size in (param.source or ONE, *param.slices.values())]
        whole = param.heads == 1 or (param.heads > 1 and not any(n % param.heads for n in units))
        need(whole, f"{param.name} of {units} units has {param.heads} heads")
        need(set(param.starts) <= set(param.slices), f"{param.name} has starts for {list(param.starts)}")


def check_initial(params: dict[str, Param], states: dict[str, str], initial: dict[str, str]) -> None:
    """Raise CellError unless `initial` names a vector of weights for each state that begins with one."""
    for state, name in initial.items():
        param = params.get(name)
        if param is None or param.source is not None or param.slices != {name: states.get(state)}:
            raise CellError(f"the state {state!r} begins with {name!r}, which is no vector of its size")


def check_types(graph: Graph, params: dict[str, Param], results: Any) -> None:
    """Raise TypeError unless everything in a definition that was read is of the type that `check` relies on."""

    def need(value: object, *kinds: type) -> None:
        if type(value) not in kinds:
            raise TypeError(f"got {value!r}, expected {' or '.join(kind.__name__ for kind in kinds)}")

    for node in graph.nodes:
        for text in (node.op, node.size, node.name, node.part, node.bias):
            need(text, str)
        for a in node.args:
            need(a, int)
        need(node.value, int, float)
    for n in (*graph.sizes.values(), *results.values()):
        need(n, int)
    for i, label in graph.labels.items():
        need(label, str)
        graph.nodes[i]
    for param in params.values():
        need(param.name, str)
        need(param.random, bool)
        need(param.heads, int)
        need(param.source, str, type(None))
        for part, size in param.slices.items():
            need(part, str)
            need(size, str)
            graph.sizes[size]
        for start in param.starts.values():
            need(start, int, float)
        graph.sizes[param.source or ONE]
