"""Generation: all layers, the output layer and the drawing of a symbol in one call, without Python in between.

A stepper is a chain of kernels that are bound to memory once: per layer the product with its input (the first layer
looks its rows up in a table of all symbols) and the loop with one step, then the logits, then the draw. States go to
and fro between two memories, as a thread may still read the old one.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...lang.definition import Definition
from ...lang.functions import sigmoid
from ...lang.graph import ONE, Graph, Node, Param
from ...lang.plan import Product, Stage, stages
from ...lang.trace import Symbol
from ..to_torch import beside_products
from . import build, sample, threads
from .frame import split
from .kernel import Recipe
from .layout import HEAD, Slot
from .memory import Arguments, Array, barrier, empty, readable, width_of, zeros
from .passes import lower
from .program import Kernel, Program
from .run import before_loop, symbols


def why_not(programs: Sequence[Program]) -> str | None:
    """Why these layers have no stepper, if so."""
    for k, program in enumerate(programs):
        graph = program.plan.definition.graph
        if program.refusal:
            return program.refusal
        if k == 0 and beside_products(graph, graph.find("input")["x"]):
            return "the first layer uses its input other than by a product"
        if k and not program.prepares:
            return "a layer computes sums of its input"
    return None


@dataclass
class _Linear:
    """What a kernel needs to know of a linear layer."""

    graph: Graph
    params: dict[str, Param]


@dataclass
class _Source:
    """What a layer reads: rows of streams [B, width], of which a state has two ("moving"), or of symbols ("table")."""

    memory: Tensor
    kind: str = ""

    def lend(self, name: str, tensors: dict[str, Tensor], moving: dict[str, Tensor]) -> Array:
        """The place of its rows, after it is among what a call knows by name."""
        (moving if self.kind == "moving" else tensors)[name] = self.memory
        return Array(name, 0, self.memory.stride(-2))


@dataclass
class _Call:
    """A kernel in the chain. `moving`: tensors with two entries, of which the state before the step is `old`."""

    kernel: Kernel
    arguments: Arguments
    tensors: dict[str, Tensor]
    moving: dict[str, Tensor]

    def bind(self, parity: int) -> "ctypes.Array[ctypes.c_int64]":
        """The arguments when the present state is in memory `parity`."""
        now = {name: memory[parity if name.startswith("old ") else 1 - parity] for name, memory in self.moving.items()}
        return self.arguments.bind(self.tensors | now)


def _chain(bound: "list[tuple[int, ctypes.Array[ctypes.c_int64]]]") -> "ctypes.Array[ctypes.c_int64]":
    """The arguments of a chain of calls: function and arguments of each."""
    values = [n for address, arguments in bound for n in (address, ctypes.addressof(arguments))]
    return (ctypes.c_int64 * (1 + len(values)))(len(bound), *values)


class Stepper:
    """A stack of layers with an output layer, one symbol at a time, for B streams.

    Args:
        programs: one per layer, bottom up; `why_not` must have no objection.
        weights: of each layer, by name, float32. They are read once: later changes are not seen.
        symbols: [V, I] what each symbol is as an input of the first layer; None: a one-hot vector.
        output: weight [V, O] and bias [V] of the output layer.
        streams: B.
        shortcuts: of each layer, what comes of its input x and its output h: None, h; no weights, h + x; the weight and
            bias of a highway's gate t, x + t (h - x).
    """

    def __init__(
        self,
        programs: Sequence[Program],
        weights: Sequence[Mapping[str, Tensor]],
        symbols: Tensor | None,
        output: tuple[Tensor, Tensor],
        streams: int,
        shortcuts: Sequence[tuple[Tensor, ...] | None],
    ) -> None:
        self._machine, self._streams = programs[0].machine, streams
        self._count = _threads(programs, streams)
        self.ids = zeros(streams, dtype=torch.int64)
        self.chance, self.scale = zeros(streams), zeros(1)
        self._barrier = barrier(self._count)  # of the draw
        self._states: list[dict[str, Tensor]] = []  # by layer: [2, B, width] each
        self._parity = 0  # which of the two holds the present state
        self._source = _Source(empty(0), "table")  # of the next layer
        if shortcuts[0] is not None:
            rows = torch.eye(programs[0].plan.definition.input_size) if symbols is None else symbols.detach().float()
            self._source = _Source(readable(rows, self._machine), "table")
        calls: list[_Call] = []
        for program, given, shortcut in zip(programs, weights, shortcuts, strict=True):
            calls += self._layer(program, given, symbols)
            below, self._source = self._source, _Source(next(iter(self._states[-1].values())), "moving")
            if shortcut is not None:
                calls.append(self._shortcut(program.plan.definition.input_size, shortcut, below))
        self._symbols = len(output[0])
        self.logits = zeros(streams, width_of(self._symbols, self._machine))
        calls.append(self._output(*output))
        self._bound = [[(call.kernel.address, call.bind(parity)) for call in calls] for parity in (0, 1)]
        draw = self._draw()
        self._step = [_chain(bound) for bound in self._bound]
        self._step_and_draw = [_chain([*bound, (sample.sample(self._machine), draw)]) for bound in self._bound]
        self._chain = sample.chain(self._machine)
        self._alive = calls, draw
        self.step()  # packs the matrices; what it computes is of no use
        for bound in self._bound:
            for _, arguments in bound:
                arguments[HEAD.index("packed")] = 1

    def set(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """The state to go on from: by layer and name, [B, units]."""
        for memory, given in zip(self._states, states, strict=True):
            for name, value in given.items():
                memory[name][self._parity, :, : value.shape[1]] = value

    def step(self) -> Tensor:
        """From `ids` [B] to the logits of the next symbols, [B, V]. The next call overwrites them."""
        threads.run(self._chain, ctypes.addressof(self._step[self._parity]), self._count)
        self._parity = 1 - self._parity
        return self.logits[:, : self._symbols]

    def draw(self, chances: Tensor, temperature: float) -> Tensor:
        """A step, and then the next `ids` [B], drawn where `chances` [B] in [0, 1) fall; -1 where a logit is NaN.

        temperature: 0 takes the most probable symbol.
        """
        self.chance.copy_(chances) if temperature else self.chance.zero_()
        self.scale.fill_(1 / temperature if temperature > 1e-30 else 1e30)
        threads.run(self._chain, ctypes.addressof(self._step_and_draw[self._parity]), self._count)
        self._parity = 1 - self._parity
        return self.ids

    def _call(
        self,
        kernel: Kernel,
        definition: "Definition | _Linear",
        tensors: Mapping[str, Tensor],
        moving: Mapping[str, Tensor],
        arrays: Mapping[Slot, Array],
    ) -> "_Call":
        """One step of a kernel; what it leaves for itself gets memory of its own."""
        graph, own = definition.graph, dict(tensors)
        found = dict(arrays)

        def array(slot: Slot) -> Array:
            node = graph.nodes[slot.node]
            if slot not in found:
                width = self._machine.lanes if node.op == "sum" else width_of(graph.sizes[node.size], self._machine)
                own[f"temporary:{slot.node}"] = zeros(self._streams, width)
                found[slot] = Array(f"temporary:{slot.node}", 0, width)
            return found[slot]

        head: dict[str, int | Array] = {"steps": 1, "rows": self._streams, "by_units": 1}
        if "ids" in tensors:
            head["ids"] = Array("ids")
        made = Arguments(kernel.layout, graph, definition.params, self._machine, head, self._count, array, False)
        return _Call(kernel, made, own | made.scratch(), dict(moving))

    def _layer(self, program: Program, weights: Mapping[str, Tensor], symbols: Tensor | None) -> "list[_Call]":
        """The kernels of a layer: the product with its input, and the step."""
        definition, graph = program.plan.definition, program.plan.definition.graph
        tensors = {n: w.detach().float().contiguous() for n, w in weights.items()}
        arrays: dict[Slot, Array] = {}
        moving: dict[str, Tensor] = {}
        calls = []
        if not self._states:
            kernel = program.forward(False, True, False)
            for i, value in _table(program, tensors, symbols).items():
                tensors[f"node:{i}"] = value
                arrays[Slot(i)] = Array(f"node:{i}", 0, value.stride(0) if value.dim() > 1 else 0)
            tensors["ids"] = self.ids
        else:
            kernel, before = program.forward(False, False, False), program.before(False, False)
            arrays[Slot(graph.find("input")["x"])] = self._source.lend("new source", tensors, moving)
            place, total = program.columns(i for one in before.passes for i in one.stores)
            tensors["hoisted"] = zeros(self._streams, total)
            arrays |= {Slot(i): Array("hoisted", at, total) for i, at in place.items()}
            if place:
                calls.append(self._call(before, definition, tensors, moving, arrays))
        self._states.append({})
        for name, i in definition.results.items():
            width = program.width(i)
            memory = self._states[-1][name] = zeros(2, self._streams, width)
            moving |= {f"old {name}": memory, f"new {name}": memory}
            arrays[Slot(graph.find("state")[name])] = Array(f"old {name}", 0, width)
            arrays[Slot(i)] = Array(f"new {name}", 0, width)
        return [*calls, self._call(kernel, definition, tensors, moving, arrays)]

    def _output(self, weight: Tensor, bias: Tensor) -> "_Call":
        """The logits: a linear layer of the last layer's output."""
        weight, bias = (t.detach().float().contiguous() for t in (weight, bias))
        nodes = [Node("input", (), "units", "x"), Node("linear", (0,), "symbols", "weight", "y", "bias")]
        linear = _Linear(
            Graph({ONE: 1, "units": weight.shape[1], "symbols": weight.shape[0]}, nodes),
            {"weight": Param("weight", {"y": "symbols"}, "units"), "bias": Param("bias", {"y": "symbols"})},
        )
        passes = lower(linear.graph, [Stage(Product("weight", ("y",), (0,), (1,), bias="bias"), ())], [1])
        kernel = self._kernel(Recipe(linear.graph, passes, self._machine))
        tensors, moving = {"weight": weight, "bias": bias, "logits": self.logits}, dict[str, Tensor]()
        source = self._source.lend("new source", tensors, moving)
        arrays = {Slot(0): source, Slot(1): Array("logits", 0, self.logits.shape[1])}
        return self._call(kernel, linear, tensors, moving, arrays)

    def _shortcut(self, units: int, gate: tuple[Tensor, ...], below: _Source) -> "_Call":
        """What goes on from a layer with a connection past it, whose input is `below`."""
        graph = Graph({ONE: 1, "units": units})
        x, h = (Symbol(graph, graph.add(Node("input", (), "units", name))) for name in "xh")
        places, tensors, moving = {x.index: below, h.index: self._source}, dict[str, Tensor](), dict[str, Tensor]()
        params: dict[str, Param] = {}
        result = h + x
        if gate:
            weights = [w.detach().float().contiguous() for w in gate]
            if below.kind == "table":  # then the gate is a row of a table too
                t = graph.add(Node("input", (), "units", "t"))
                rows = F.linear(below.memory[:, :units], *weights)
                places[t] = _Source(readable(rows, self._machine), "table")
            else:
                params = {"weight": Param("weight", {"y": "units"}, "units"), "bias": Param("bias", {"y": "units"})}
                tensors |= dict(zip(params, weights, strict=True))
                t = graph.add(Node("linear", (x.index,), "units", "weight", "y", "bias"))
            result = x + sigmoid(Symbol(graph, t)) * (h - x)
        self._source = _Source(zeros(self._streams, width_of(units, self._machine)))
        places[result.index] = self._source
        needed = graph.reachable([result.index])
        passes = lower(graph, stages(graph, needed), [result.index])
        looked_up = frozenset(i for i, place in places.items() if place.kind == "table")
        kernel = self._kernel(Recipe(graph, passes, self._machine, looked_up))
        if looked_up:
            tensors["ids"] = self.ids
        arrays = {Slot(i): place.lend(f"new {i}", tensors, moving) for i, place in places.items()}
        return self._call(kernel, _Linear(graph, params), tensors, moving, arrays)

    def _kernel(self, recipe: Recipe) -> Kernel:
        return Kernel(build.load(recipe.key(), recipe.text, self._machine), recipe.layout, recipe.passes)

    def _draw(self) -> "ctypes.Array[ctypes.c_int64]":
        number, total = threads.addresses(self._count)
        values = {
            "rows": self._streams,
            "symbols": self._symbols,
            "logits": self.logits.data_ptr(),
            "row": self.logits.shape[1],
            "scale": self.scale.data_ptr(),
            "chance": self.chance.data_ptr(),
            "ids": self.ids.data_ptr(),
            "barrier": self._barrier.data_ptr(),
            "thread_number": number,
            "thread_count": total,
            "yield_now": threads.yield_address(),
        }
        return (ctypes.c_int64 * len(values))(*(values[name] for name in sample.SAMPLE))


def _table(program: Program, weights: Mapping[str, Tensor], given: Tensor | None) -> dict[int, Tensor]:
    """What follows from each symbol before the loop: rows of a table, by node."""
    graph = program.plan.definition.graph
    x = symbols(program) if given is None else given.detach().float()[:, None]
    with torch.no_grad():
        values = before_loop(program, weights, {"x": x}, {})
    found = {}
    for i in program.plan.forward.carried:
        value = values[i]
        if isinstance(value, Tensor) and graph.nodes[i].op not in ("input", "param"):
            value = value.squeeze(1) if value.dim() == 3 else value
            found[i] = value.contiguous() if graph.nodes[i].size == ONE else readable(value, program.machine)
    return found


def _threads(programs: Sequence[Program], streams: int) -> int:
    """As many as the largest of the layers is worth; one where a row is summed, which units cannot share."""
    most = threads.threads()
    kernels = [(p.forward(False, k == 0, False), p.plan.definition.graph) for k, p in enumerate(programs)]
    if any(graph.nodes[i].op == "sum" for kernel, graph in kernels for one in kernel.passes for i in one.nodes):
        return 1
    # Many short calls: a step is worth as much as a sequence of them.
    return max(split(kernel, graph, 64, streams, most)[0] for kernel, graph in kernels)
