"""Where the values of a run lie, worked out once for each shape of a call.

Memory of a run, in float32 unless it says bfloat16:

state:NAME   [(T + 1) * B, width]: the state before the first step, then after each
narrow:NAME  the same in bfloat16, if it is an operand of products
narrow, narrow:before, narrow:kept   [T * B, widths] in bfloat16: other operands of products, made by the loop, by the
             kernel before it, and by the loop back
narrow:x     [T * B, I] in bfloat16: x, with a zero after an odd number of features
saved        [T * B, widths]: what the loop keeps for the way back
hoisted      [T * B, widths]: what was computed before the loop; in the order of x
kept         [T * B, widths]: the gradients that the loop back leaves for the products after it
carried:NAME [B, width]: the gradient of a state on its way back
seed:NAME    [T * B, units]: the gradients of a state that come from outside; "nothing", zeros, where there are none
input:NAME, node:I, ids   what is given: x and masks, what torch has computed before the loop, symbols as row numbers
panels, temporary: packed matrices, and what one pass leaves for the next
memory:keys, memory:values, memory:energy, positions: what look-ups read: [B, S, width], [width] and whole numbers [B]
weights      [T * B, width of S]: the weights of a look-up; "seed of weights" [T * B, S]: their gradients from outside
of keys, of values, of energy: the gradients of a memory, one by one for each row [B, ..., width]

With lengths (`lengths.Batch`) there is one row per valid input instead of T * B. `memories` lists what a loop forward
writes; on the way back it is read again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ...lang.graph import Graph
from .after import column_order
from .layout import BEFORE, NOW, STILL, Slot
from .memory import Arguments, Array, width_of
from .passes import Pass
from .program import Kernel, Program

SEED = ""  # beside the names of states: the weights of a look-up


@dataclass(frozen=True)
class Shape:
    """What decides where values lie.

    rows: N, as many as there are inputs. ragged: whether sequences have lengths. prepared: who computes what does not
    depend on a state: "kernel", or "torch", or "table" (torch, once for every symbol). inner: whether in memory the
    batch goes within time (else time within the batch). narrow: whether operands of products are bfloat16. strides: of
    the inputs, by name; "narrow" for x in bfloat16. positions: S, of the memory that the equations look into.
    """

    steps: int
    batch: int
    rows: int
    ragged: bool
    reverse: bool
    training: bool
    prepared: str
    inner: bool
    narrow: bool
    strides: tuple[tuple[str, tuple[int, ...]], ...]
    threads: int
    positions: int = 0


@dataclass(frozen=True)
class Memory:
    """A tensor that a loop forward writes: [N, columns], or [B + N, columns] with the state before the first step."""

    columns: int
    started: bool = False
    dtype: torch.dtype = torch.float32


def memories(program: Program, training: bool, prepared: str, narrow: bool, positions: int = 0) -> dict[str, Memory]:
    """What a loop forward writes for its results and for the way back, by name; arguments as in `Shape`."""
    definition = program.plan.definition
    results = definition.results
    operands = program.narrowed("forward") if narrow else frozenset()

    def total(nodes: Iterable[int]) -> int:
        return program.columns(nodes)[1]

    found = {f"state:{name}": Memory(program.width(i), True) for name, i in results.items()}
    if narrow:
        both = {name: i for name, i in results.items() if i in operands}
        found |= {f"narrow:{name}": Memory(program.width(i), True, torch.bfloat16) for name, i in both.items()}
        found["narrow"] = Memory(total(operands - set(results.values())), dtype=torch.bfloat16)
    if training and program.kept:
        found["saved"] = Memory(total(program.kept))
    if prepared == "kernel" and training and program.needed_later:
        found["hoisted"] = Memory(total(i for one in program.before(training, narrow).passes for i in one.stores))
    if program.looks:
        found["weights"] = Memory(width_of(positions, program.machine))
    return found


class Frame:
    """The memory of one shape of run, and the arguments of its kernels."""

    def __init__(self, program: Program, shape: Shape, hoisted: Mapping[int, tuple[int, ...]]) -> None:
        """`hoisted`: strides of what torch computes before the loop, by node."""
        self.memories = memories(program, shape.training, shape.prepared, shape.narrow, shape.positions)
        self.program, self.shape = program, shape
        self.machine, plan = program.machine, program.plan
        definition, graph = plan.definition, plan.definition.graph
        self.definition, self.graph = definition, graph
        T, B, table = shape.steps, shape.batch, shape.prepared == "table"
        self.arrays: dict[int, Array] = {}
        self.operands: dict[int, Array] = {}
        for name, i in definition.results.items():
            width = self.width(i)
            leaf = graph.find("state")[name]
            memory = f"state:{name}"
            if shape.ragged:
                self.arrays[leaf] = Array(memory, 0, width, 0, BEFORE)
                self.arrays[i] = Array(memory, B * width, width, 0, NOW)
            else:
                stride = B * width
                start, step = (T * stride, -stride) if shape.reverse else (0, stride)
                self.arrays[leaf] = Array(memory, start, width, step)
                self.arrays[i] = Array(memory, start + step, width, step)
        if shape.narrow:
            narrow = program.narrowed("forward")
            for name, i in definition.results.items():
                if i in narrow:
                    for j in (i, graph.find("state")[name]):
                        self.operands[j] = self.arrays[j].narrowed(f"narrow:{name}")
            others = sorted(narrow - set(definition.results.values()))
            beside, _ = self.side_by_side("narrow", others, shape.reverse)
            self.operands |= {i: a.narrowed("narrow") for i, a in beside.items()}
        kept, _ = self.side_by_side("saved", program.kept if shape.training else (), shape.reverse)
        self.arrays |= kept
        self.leaves: dict[int, Array] = {}
        for name, i in graph.find("input").items():
            if name in dict(shape.strides):
                self.leaves[i] = self.sequence(f"input:{name}", dict(shape.strides)[name], shape.reverse)
        self.hoist: Arguments | None = None
        self.place: dict[int, int] = {}  # columns in "hoisted"
        if shape.prepared == "kernel":
            self._prepare()
        for i, strides in hoisted.items():
            if table and i in program.tabled:
                self.leaves[i] = Array(f"node:{i}", 0, strides[0], 0)
            elif len(strides) == 1:
                self.leaves[i] = Array(f"node:{i}")
            else:
                self.leaves[i] = self.sequence(f"node:{i}", strides, shape.reverse)
        self.kernel = program.forward(shape.training, table, shape.narrow)
        known = self.arrays | self.leaves
        self.loop, self.temporary = self.arguments(self.kernel, graph, known, self.operands, {}, shape.reverse)
        self._back: dict[tuple[tuple[int, ...] | None, ...], Back] = {}

    def back(self, seeds: Mapping[str, Tensor | None]) -> "Back":
        """The loop back, for gradients of these strides from outside."""
        key = tuple(None if s is None else s.stride() for s in seeds.values())
        if key not in self._back:
            self._back[key] = Back(self, dict(zip(seeds, key, strict=True)))
        return self._back[key]

    def _prepare(self) -> None:
        """The kernel for what comes before the loop."""
        program, shape = self.program, self.shape
        kernel = self.prepare_kernel = program.before(shape.training, shape.narrow)
        wanted = [i for one in kernel.passes for i in one.stores]
        self.place, P = program.columns(wanted)
        self.hoisted = P
        narrow, self.before = self.side_by_side("narrow:before", sorted(program.narrowed("before")), False)

        def array(slot: Slot) -> Array:
            node = self.graph.nodes[slot.node]
            if slot.name == "narrow" and node.op == "input":
                return Array("narrow:x", 0, self.between_rows(dict(shape.strides)["narrow"]), bytes=2)
            if slot.name == "narrow":
                return Array("narrow:before", narrow[slot.node].offset, self.before, bytes=2)
            if slot.node in self.place:
                return Array("hoisted", self.place[slot.node], P)
            assert node.op == "input"
            return Array(f"input:{node.name}", 0, self.between_rows(dict(shape.strides)[node.name]))

        self.hoist = self.as_rows(kernel, self.graph, array)
        for i in wanted:
            strides = (shape.batch * P, P) if shape.inner else (P, shape.steps * P)
            strides = (P, P) if shape.ragged else strides
            self.leaves[i] = self.sequence("hoisted", strides, shape.reverse).moved(self.place[i])

    def between_rows(self, strides: tuple[int, ...]) -> int:
        """From one input to the next, when all steps are one."""
        time = self.shape.ragged or self.shape.batch == 1 or not self.shape.inner
        return strides[0] if time else strides[1]

    def as_rows(self, kernel: Kernel, graph: Graph, array: Callable[[Slot], Array]) -> Arguments:
        """The arguments of a kernel that does the same for all inputs, as if they were rows of one step."""
        shape = self.shape
        count, by_units = split(kernel, graph, 1, shape.rows, shape.threads)
        head = {"steps": 1, "rows": shape.rows, "by_units": by_units}
        return Arguments(kernel.layout, graph, self.definition.params, self.machine, head, count, array, shape.narrow)

    def width(self, i: int) -> int:
        """Numbers of a row of a node in memory."""
        return self.program.width(i)

    def of_memory(self, graph: Graph, slot: Slot, backwards: bool, seed: tuple[int, ...] | None) -> Array:
        """What a look-up reads and writes besides its arguments and its result; seed: strides of "seed"."""
        node, room = graph.nodes[slot.node], width_of(self.shape.positions, self.machine)
        widths = {"keys": self.width(node.args[-1]), "values": width_of(graph.sizes[node.name], self.machine)}
        tensor, of = slot.name.removeprefix("of "), slot.name.startswith("of ")
        if tensor in widths:
            return Array(slot.name if of else f"memory:{tensor}", 0, self.shape.positions * widths[tensor])
        if tensor == "energy":
            return Array(slot.name, 0, widths["keys"]) if of else Array("memory:energy")
        if tensor == "positions":
            return Array("positions", 0, 1)
        if tensor == "weights":
            return self.sequence("weights", (room if self.shape.ragged else self.shape.batch * room, room), backwards)
        if tensor == "scores":
            return Array("scores", 0, room)
        return Array("nothing") if seed is None else self.sequence("seed of weights", seed, backwards)

    def sequence(self, name: str, strides: tuple[int, ...], backwards: bool) -> Array:
        """A tensor [T, B, ...], or [N, 1, ...] with lengths, over the steps of a loop."""
        if self.shape.ragged:
            return Array(name, 0, strides[0], 0, NOW)
        forward = Array(name, 0, strides[1], strides[0])
        return forward.turned(self.shape.steps) if backwards else forward

    def side_by_side(self, name: str, nodes: Sequence[int], backwards: bool) -> tuple[dict[int, Array], int]:
        """Columns for each node in one tensor that is in the order of time, and the sum of their widths."""
        place, total = self.program.columns(nodes)
        whole = self.sequence(name, (total if self.shape.ragged else self.shape.batch * total, total), backwards)
        return {i: whole.moved(at) for i, at in place.items()}, total

    def arguments(
        self,
        kernel: Kernel,
        graph: Graph,
        arrays: Mapping[int, Array],
        operands: Mapping[int, Array],
        grads: Mapping[Slot, Array],
        backwards: bool,
        seed: tuple[int, ...] | None = None,
    ) -> tuple[Arguments, int]:
        """The arguments of a loop, and how many temporary numbers it needs."""
        shape = self.shape
        if shape.ragged:
            count, by_units = shape.threads, 0
        else:
            count, by_units = split(kernel, graph, shape.steps, shape.batch, shape.threads)
        head: dict[str, int | Array] = {"steps": shape.steps, "rows": shape.batch, "by_units": by_units}
        if shape.ragged:
            head["table"] = Array("table")
        if shape.prepared == "table":
            # Offsets count numbers of 4 bytes, ids have 8.
            B = shape.batch
            head["ids"] = Array("ids", 2 * (shape.steps - 1) * B if backwards and not shape.ragged else 0)
            head["ids_step"] = 0 if shape.ragged else -B if backwards else B
        sources = {i for one in kernel.passes if one.product for i in one.product.sources}
        found: dict[int, Array] = {}
        temporary = 0

        def array(slot: Slot) -> Array:
            nonlocal temporary
            i, node = slot.node, graph.nodes[slot.node]
            if slot.name == "narrow":
                return operands[i]
            if slot.name and slot not in grads:
                return self.of_memory(graph, slot, backwards, seed)
            if slot in grads or i in arrays:
                return grads[slot] if slot in grads else arrays[i]
            if i not in found:
                width = self.machine.lanes if node.op == "sum" else self.width(i)
                # A thread may be a step ahead of another: what a product reads must stay until all have read it.
                many = i in sources
                step = shape.batch * width if many and not shape.ragged else 0
                found[i] = Array("temporary", temporary, width, step, NOW if many else STILL)
                temporary += width * (shape.rows if many else shape.batch)
            return found[i]

        params, narrow = self.definition.params, shape.narrow
        arguments = Arguments(kernel.layout, graph, params, self.machine, head, count, array, narrow)
        return arguments, temporary


class Back:
    """The arguments of the loop back."""

    def __init__(self, frame: Frame, seeds: Mapping[str, tuple[int, ...] | None]) -> None:
        """`seeds`: strides of the gradients from outside, by state, and of `SEED`; None: there is none."""
        shape, plan = frame.shape, frame.program.plan
        graph, backwards = plan.gradient.graph, not shape.reverse
        self.kernel = frame.program.backward(shape.prepared == "table", shape.narrow)
        self.order = column_order(plan)
        kept, self.total = frame.side_by_side("kept", self.order, backwards)
        self.place, _ = frame.program.columns(self.order)
        # What only the loop reads comes after what the products after it read too.
        narrow = frame.program.narrowed("backward") if shape.narrow else frozenset()
        every = [*self.order, *sorted(narrow - set(self.order))] if narrow else []
        beside, self.beside = frame.side_by_side("narrow:kept", every, backwards)
        operands = {i: a.narrowed("narrow:kept") for i, a in beside.items()}
        known = frame.arrays | frame.leaves
        arrays = (known if shape.ragged else {i: a.turned(shape.steps) for i, a in known.items()}) | kept
        grads = {}
        for name, i in graph.find("grad").items():
            flow, strides = plan.gradient.states[name], seeds[name]
            assert flow is not None
            carried = Array(f"carried:{name}", 0, frame.width(i))
            grads[Slot(i, "carried")] = grads[Slot(flow, "carried")] = carried
            outside = Array("nothing") if strides is None else frame.sequence(f"seed:{name}", strides, backwards)
            grads[Slot(i, "outside")] = outside
        seed = seeds.get(SEED)
        self.loop, self.temporary = frame.arguments(self.kernel, graph, arrays, operands, grads, backwards, seed)
        self._frame = frame

    @cached_property
    def after(self) -> Arguments | None:
        """The kernel for what follows the loop; None: torch does that."""
        frame = self._frame
        if not frame.program.finishes or frame.shape.prepared == "table":
            return None
        program, shape, graph = frame.program, frame.shape, frame.program.plan.gradient.graph
        kernel = self.after_kernel = program.after(shape.narrow)
        wanted = program.plan.gradient.inputs["x"]
        assert wanted is not None
        self.width = frame.width(wanted)

        def array(slot: Slot) -> Array:
            if slot.node == wanted:
                return Array("into", 0, self.width)
            kept = Array("kept", self.place[slot.node], self.total)
            return replace(kept, row=self.beside).narrowed("narrow:kept") if slot.name == "narrow" else kept

        return frame.as_rows(kernel, graph, array)


def split(kernel: Kernel, graph: Graph, T: int, B: int, most: int) -> tuple[int, int]:
    """(threads, 1 to split the units or 0 the rows), from the work of a step."""
    sums = any(one.lookup or graph.nodes[i].op == "sum" for one in kernel.passes for i in one.nodes)
    work = sum(_work(one, graph) for one in kernel.passes) * B  # multiplications of one step
    if most == 1 or work * T < 400_000:
        return 1, 0
    if 4 * most <= B:
        return most, 0
    if not sums and work >= 50_000:
        return most, 1
    return (min(most, B), 0) if B > 1 else (1, 0)


def _work(one: Pass, graph: Graph) -> int:
    units = graph.sizes[one.size]
    products = 0
    if one.product:
        depth = sum(graph.sizes[graph.nodes[i].size] for i in one.product.sources)
        products = depth * len(one.product.results) * units
    return products + 20 * len(one.nodes) * units
