"""A plan as ONNX nodes: what is hoisted stands before a `Scan` node, the step is its body.

Nodes and constants are plain data here; what turns them into a file is the caller's. They follow opset 21, which has
every operation that the table needs and runs in every ONNX Runtime since 1.18.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..lang.graph import PRODUCTS, Graph
from ..lang.plan import Plan, Product, Stage

OPSET = 21
IR_VERSION = 10
BOOL, INT32, INT64 = 9, 6, 7  # ONNX's numbers of the types
TYPES = {"float32": 1, "float64": 11, "bool": BOOL, "int32": INT32, "int64": INT64}


@dataclass(frozen=True)
class Body:
    """The graph of a `Scan`: its inputs with their units (0: whole numbers), the names of its outputs; it also sees
    every name of the graph around it."""

    inputs: dict[str, int]
    outputs: tuple[str, ...]
    nodes: tuple["OnnxNode", ...]


@dataclass(frozen=True)
class OnnxNode:
    """One node: `attributes` are numbers, strings, lists of them, or a `Body`."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass
class Builder:
    """Collects nodes and constants; every value is known by its name. `dtype` is that of the numbers."""

    dtype: np.dtype[Any]
    nodes: list[OnnxNode] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _known: dict[Any, str] = field(default_factory=dict)

    def name(self, hint: str) -> str:
        """A name that nothing has yet."""
        name, k = hint, 1
        while name in self._names:
            name, k = f"{hint}_{k}", k + 1
        self._names.add(name)
        return name

    def constant(self, value: Any, hint: str = "constant", of: tuple[str, ...] = ()) -> str:
        """A constant: an array as it is, a number as a scalar of the model's dtype; equal ones are stored once.

        `of`: the slices of a weight that it is, and equal weights are not the same.
        """
        array = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else np.asarray(value, self.dtype)
        array = array.reshape(np.shape(value))  # ascontiguousarray makes a vector of a scalar
        key = (hint, *of) if of else (array.shape, array.dtype.str, array.tobytes())
        if key not in self._known:
            self._known[key] = self.name(hint)
            self.constants[self._known[key]] = array
        return self._known[key]

    def numbers(self, *values: int) -> str:
        """A vector of int64, which axes and shapes are."""
        return self.constant(np.array(values, np.int64), "numbers")

    def number(self, value: int) -> str:
        """One int64, as an index or a step of a range."""
        return self.constant(np.array(value, np.int64), "number")

    def op(self, op: str, *inputs: str, hint: str = "", **attributes: Any) -> str:
        """Append a node with one output; returns its name."""
        return self.many(op, *inputs, outputs=(hint or op.lower(),), **attributes)[0]

    def many(self, op: str, *inputs: str, outputs: tuple[str, ...], **attributes: Any) -> tuple[str, ...]:
        """Append a node with several outputs; an empty name leaves one away."""
        names = tuple(self.name(hint) if hint else "" for hint in outputs)
        self.nodes.append(OnnxNode(op, inputs, names, attributes))
        return names

    def cast(self, value: str, to: int) -> str:
        """A value as another type, by ONNX's number."""
        return self.op("Cast", value, to=to)

    def real(self, value: str) -> str:
        """A value as the model's dtype."""
        return self.cast(value, TYPES[self.dtype.name])

    @contextmanager
    def inside(self) -> Iterator[list[OnnxNode]]:
        """Collects the nodes of a body instead."""
        around, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = around


Spelling = str | Callable[..., str]


def _softplus(b: Builder, a: str) -> str:
    """max(a, 0) + log(1 + exp(-|a|)): exact where exp(a) is not finite."""
    rest = b.op("Log", b.op("Add", b.op("Exp", b.op("Neg", b.op("Abs", a))), b.constant(1.0)))
    return b.op("Add", b.op("Max", a, b.constant(0.0)), rest)


# An operator's name, or what builds it from several. `spread` also gets the number of units.
SPELLING: dict[str, Spelling] = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "neg": "Neg",
    "maximum": "Max",
    "minimum": "Min",
    "less": lambda b, x, y: b.real(b.op("Less", x, y)),
    "where": lambda b, c, x, y: b.op("Where", b.cast(c, BOOL), x, y),
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "relu": lambda b, a: b.op("Max", a, b.constant(0.0)),
    "softplus": _softplus,
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "sign": lambda b, a: b.op("Where", b.op("IsNaN", a), a, b.op("Sign", a)),
    "sin": "Sin",
    "cos": "Cos",
    "erf": "Erf",
    "sum": lambda b, a: b.op("ReduceSum", a, b.numbers(-1), keepdims=1),
    "spread": lambda b, a, units: b.op("Expand", a, b.numbers(units)),
}


def spell(b: Builder, op: str, *args: Any) -> str:
    """One operation of the language, applied to values by their names."""
    spelling = SPELLING[op]
    return b.op(spelling, *args) if isinstance(spelling, str) else spelling(b, *args)


@dataclass(frozen=True)
class Memory:
    """Names of what a look-up reads: keys [B, S, A], values [B, S, M], energy [A, 1] ("": the score is a product), and
    valid [B, S] of bool ("": everywhere). See `emit.attention.Memory`."""

    keys: str
    values: str
    energy: str = ""
    valid: str = ""

    def look(self, b: Builder, query: str) -> tuple[str, str]:
        """For a query [B, A] the context [B, M] and the weights [B, S]."""
        if self.energy:
            added = b.op("Add", self.keys, b.op("Unsqueeze", query, b.numbers(1)))
            scores = b.op("MatMul", b.op("Tanh", added), self.energy)
        else:
            scores = b.op("MatMul", self.keys, b.op("Unsqueeze", query, b.numbers(2)))
        scores = b.op("Squeeze", scores, b.numbers(2))
        if self.valid:  # the lowest number instead of -inf: a row without a valid score would give NaN
            scores = b.op("Where", self.valid, scores, b.constant(float(np.finfo(b.dtype).min)))
        weights = b.op("Softmax", scores, axis=1)
        if self.valid:
            weights = b.op("Where", self.valid, weights, b.constant(0.0))
        context = b.op("MatMul", b.op("Unsqueeze", weights, b.numbers(1)), self.values)
        return b.op("Squeeze", context, b.numbers(1)), weights


@dataclass
class _Step:
    """Emits nodes of `graph`: `values` holds the names of what is there already, by node; `looked` the weights [B, S]
    of a look into `memory`."""

    b: Builder
    graph: Graph
    plan: Plan
    weights: Mapping[str, NDArray[Any]]
    suffix: str
    values: dict[int, str]
    whole: bool  # x holds integers, which stand for one-hot vectors
    memory: Memory | None = None
    looked: str = ""

    def rows(self, name: str, parts: tuple[str, ...]) -> NDArray[Any]:
        """The rows of some slices of a weight."""
        param = self.plan.definition.params[name]
        spans = [param.rows(part, self.graph.sizes) for part in parts]
        return np.concatenate([self.weights[name][a : a + n] for a, n in spans])

    def stage(self, stage: Stage) -> None:
        """A product or a look-up, then the operations that follow it."""
        if stage.product:
            self.product(stage.product)
        if stage.lookup is not None:
            self.look_up(stage.lookup)
        for i in stage.nodes:
            node = self.graph.nodes[i]
            args: list[Any] = [self.values[a] for a in node.args]
            if node.op == "spread":
                args.append(self.graph.sizes[node.size])
            self.values[i] = spell(self.b, node.op, *args)

    def product(self, p: Product) -> None:
        """One dense product for all its slices; integers look up columns of the matrix."""
        b, source = self.b, p.sources[0]
        matrix = b.constant(self.rows(p.matrix, p.parts).T, f"{p.matrix}{self.suffix}", p.parts)  # [source, rows]
        if self.whole and self.graph.nodes[source].op == "input":
            result = b.op("Gather", matrix, self.values[source], axis=0)
        else:
            result = b.op("MatMul", self.row(source, len(b.constants[matrix])), matrix)
        if p.bias:
            result = b.op("Add", result, b.constant(self.rows(p.bias, p.parts), f"{p.bias}{self.suffix}", p.parts))
        units = [self.graph.sizes[self.graph.nodes[i].size] for i in p.results]
        names = [result]
        if len(units) > 1:
            names = list(b.many("Split", result, b.numbers(*units), outputs=p.parts, axis=-1))
        self.values.update(zip(p.results, names, strict=True))

    def look_up(self, i: int) -> None:
        """One look into the memory; the context ends a row of zeros."""
        b, sizes, node = self.b, self.graph.sizes, self.graph.nodes[i]
        assert self.memory is not None
        query = self.row(node.args[0], sizes[self.graph.nodes[node.args[0]].size])
        context, self.looked = self.memory.look(b, query)
        self.values[i] = b.op("Pad", context, b.numbers(0, sizes[node.size] - sizes[node.name], 0, 0))

    def row(self, i: int, units: int) -> str:
        """A value with all its units, where one number may stand for it."""
        if self.graph.nodes[i].op in ("const", "count"):
            return self.b.op("Expand", self.values[i], self.b.numbers(units))
        return self.values[i]


def scan(
    b: Builder,
    plan: Plan,
    weights: Mapping[str, NDArray[Any]],
    inputs: dict[str, str],
    state: dict[str, str],
    *,
    whole: bool = False,
    reverse: bool = False,
    suffix: str = "",
    memory: Memory | None = None,
) -> tuple[str, dict[str, str], str]:
    """Append a cell over all steps, in one direction.

    Args:
        b: takes the nodes.
        plan: of the cell, with its masks as further inputs.
        weights: by the names in `plan.definition.params`.
        inputs: names of "x" [T, B, I], or integers [T, B] for one-hot vectors, and of the masks [T, B, 1].
        state: names of the states before the first step, [B, units] each.
        whole: x holds integers.
        reverse: go from the last step to the first.
        suffix: what the weights' names end with.
        memory: what the equations look into.

    Returns:
        The names of the first state after every step [T, B, units], of all states after the last one, and of the
        weights of every look into the memory [T, B, S] ("" without one).
    """
    definition, forward = plan.definition, plan.forward
    graph = definition.graph
    leaves, x = graph.find("input"), graph.find("input")["x"]
    if whole and (x in definition.results.values() or _beside_products(graph, x)):
        inputs, whole = inputs | {"x": one_hot(b, inputs["x"], definition.input_size)}, False
    step = _Step(b, graph, plan, weights, suffix, {leaves[n]: inputs[n] for n in leaves}, whole, memory)
    for i, node in enumerate(graph.nodes):
        if node.op in ("const", "count"):
            step.values[i] = b.constant(node.value if node.op == "const" else float(graph.sizes[node.name]))
        elif node.op == "param":
            step.values[i] = b.constant(step.rows(node.name, (node.part,)), f"{node.name}{suffix}", (node.part,))
    for stage in forward.hoisted:
        step.stage(stage)
    moving = graph.depends([*leaves.values(), *graph.find("state").values()])
    carried = [i for i in forward.carried if i in moving]  # the rest is the same at every step
    given = [step.values[i] for i in carried] or [inputs["x"]]  # which also counts the steps
    with b.inside() as nodes:
        before = {name: b.name(f"{name}_before") for name in state}
        now = [b.name(f"{name}_now") for name in given]
        step.values |= dict(zip(carried, now, strict=False))
        step.values |= {i: before[name] for name, i in graph.find("state").items()}
        for stage in forward.loop:
            step.stage(stage)
        after = []
        for name, i in definition.results.items():
            value = step.values[i]
            if i not in moving:
                value = b.op("Expand", value, b.op("Shape", before[name]))
            after.append(b.op("Identity", value, hint=f"{name}_after"))
        collected = [f"output{suffix}", *(["weights"] if memory else [])]
        after += [b.op("Identity", value) for value in (after[0], step.looked)[: len(collected)]]
    units = [graph.sizes[graph.nodes[i].size] for i in carried] or [0 if whole else definition.input_size]
    shapes = {before[n]: definition.state_size(n) for n in before} | dict(zip(now, units, strict=True))
    body = Body(shapes, tuple(after), tuple(nodes))
    names = tuple(f"{name}{suffix}_last" for name in state)
    order = {"scan_input_directions": [1] * len(now), "scan_output_directions": [1] * len(collected)} if reverse else {}
    results = b.many(
        "Scan",
        *state.values(),
        *given,
        outputs=(*names, *collected),
        body=body,
        num_scan_inputs=len(now),
        **order,
    )
    output, looked = (*results[len(state) :], "")[:2]
    return output, dict(zip(state, results, strict=False)), looked


def one_hot(b: Builder, ids: str, depth: int) -> str:
    """Integers as vectors of 0 and 1."""
    # ONNX Runtime has OneHot in float32 only.
    return b.real(b.op("Equal", b.op("Unsqueeze", ids, b.numbers(-1)), b.numbers(*range(depth)), hint="one_hot"))


def _beside_products(graph: Graph, x: int) -> bool:
    """Whether x is used other than by a product, for which an integer can stand for a one-hot vector."""
    return any(x in n.args and n.op not in PRODUCTS for n in graph.nodes)
