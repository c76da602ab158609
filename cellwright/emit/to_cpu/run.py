"""Run a compiled plan on tensors: memory for what it keeps, the calls of its kernels, and what surrounds them.

The large products before and after the loop are torch's.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...lang.graph import ONE, Graph, Param
from ..to_torch import Gradients, begin, beside_products
from . import threads
from .after import after_loop, column_order
from .layout import GRANULE, HEAD, Slot
from .machine import Machine
from .memory import Array, pack, readable, sequence, width_of
from .passes import Pass
from .program import Kernel, Program


@dataclass
class Done:
    """What a forward run leaves for the way back."""

    params: Mapping[str, Param]
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    ids: Tensor | None
    reverse: bool
    arrays: dict[int, Array]
    hoisted: dict[int, Tensor | float]
    tabled: frozenset[int]


def forward(
    program: Program,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    reverse: bool,
    training: bool,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Done]:
    """Run the loop: states after every step [T, B, n] and the last ones [B, n], by name, and what the way back needs.

    The arguments are those of `to_torch.run`, in float32.
    """
    plan, machine = program.plan, program.machine
    definition, graph = plan.definition, plan.definition.graph
    x = inputs["x"]
    T, B = x.shape[:2]
    leaves = graph.find("input")
    whole = not x.is_floating_point() and not beside_products(graph, leaves["x"])
    table = whole and definition.input_size <= 2 * T * B
    given = dict(inputs)
    if table:
        given["x"] = torch.arange(definition.input_size).view(-1, 1)
    step = begin(plan, graph, weights, given, next(iter(state.values())))
    if table:
        step.lead = (definition.input_size, 1)
    for stage in plan.forward.hoisted:
        step.stage(stage)
    kernel = program.forward(training, table)

    arrays: dict[int, Array] = {}
    memory: dict[str, Tensor] = {}
    hoisted = {i: v for i, v in step.values.items() if graph.nodes[i].op not in ("const", "count")}
    tabled = program.tabled if table else frozenset[int]()
    states: dict[str, Tensor] = {}
    for name, i in definition.results.items():
        units = definition.state_size(name)
        width = width_of(units, machine)
        rows = torch.empty(T + 1, B, width)
        first = rows[T if reverse else 0]
        first[:, :units] = state[name]
        if width > units:
            first[:, units:] = 0
        memory[name] = rows
        stride = B * width
        start, sign = (T, -1) if reverse else (0, 1)
        arrays[graph.find("state")[name]] = Array(rows, start * stride, width, sign * stride)
        arrays[i] = Array(rows, (start + sign) * stride, width, sign * stride)
        states[name] = rows[:T] if reverse else rows[1:]
    if training and program.kept:
        kept = program.kept
        widths = [width_of(graph.sizes[graph.nodes[i].size], machine) for i in kept]
        saved = torch.empty(T, B, sum(widths))
        for n, i in enumerate(kept):
            arrays[i] = sequence(saved, reverse)
            arrays[i].offset += sum(widths[:n])
    done = Done(definition.params, dict(weights), dict(inputs), x if table else None, reverse, arrays, hoisted, tabled)
    _call(kernel, graph, machine, arrays, done, T, B, reverse)
    last = {name: memory[name][0 if reverse else T, :, : definition.state_size(name)] for name in states}
    views = {name: s[..., : definition.state_size(name)] for name, s in states.items()}
    return views, last, done


def _leaf(value: Tensor, size: str, T: int, B: int, backwards: bool, tabled: bool, machine: Machine) -> Array:
    """The array of an input, of a vector of weights, or of a value computed before the loop."""
    value = value if size == ONE else readable(value, machine)
    if tabled:
        return Array(value, 0, value.stride(0), 0)
    if value.dim() == 1:
        return Array(value)
    return sequence(value.expand(T, B, value.shape[-1]), backwards)


def _call(
    kernel: Kernel,
    graph: Graph,
    machine: Machine,
    arrays: dict[int, Array],
    done: Done,
    T: int,
    B: int,
    backwards: bool,
    grads: Mapping[Slot, Array] | None = None,
) -> None:
    """Gather the arguments and run the kernel."""
    sizes, layout, ids = graph.sizes, kernel.layout, done.ids
    count, by_units = _split(kernel, graph, T, B)
    barrier = torch.zeros(8, dtype=torch.int64)
    alive: list[Tensor] = [barrier]
    number, total = threads.addresses(count)
    head = {"steps": T, "rows": B, "by_units": by_units, "barrier": barrier.data_ptr(), "thread_number": number}
    head |= {"thread_count": total, "yield_now": threads.yield_address(), "ids": 0, "ids_step": 0}
    if ids is not None:
        ids = ids.contiguous()
        alive.append(ids)
        head["ids"] = ids.data_ptr() + 8 * ((T - 1) * B if backwards else 0)
        head["ids_step"] = -B if backwards else B
    values = [head[name] for name in HEAD]
    values += [sizes[name] for name in layout.sizes]
    for product in layout.products:
        panel = pack(product, done.params[product.matrix], done.weights[product.matrix], sizes, machine)
        alive.append(panel)
        values.append(panel.data_ptr())
    sources = {i for one in kernel.passes if one.product for i in one.product.sources}
    for slot in layout.slots:
        if slot.node < 0:
            first, rows = done.params[slot.name].rows(slot.part, sizes)
            vector = F.pad(done.weights[slot.name].narrow(0, first, rows), (0, width_of(rows, machine, GRANULE) - rows))
            alive.append(vector)
            values += [vector.data_ptr(), 0, 0]
            continue
        array = (grads or {}).get(slot)
        if array is None:
            array = arrays.get(slot.node)
        node = graph.nodes[slot.node]
        if array is None and isinstance(value := done.hoisted.get(slot.node), Tensor):
            array = _leaf(value, node.size, T, B, backwards, slot.node in done.tabled, machine)
        if array is None:
            width = machine.lanes if node.op == "sum" else width_of(sizes[node.size], machine)
            steps = T if slot.node in sources else 1
            memory = torch.empty(steps, B, width)
            array = arrays[slot.node] = Array(memory, 0, width, B * width if steps > 1 else 0)
        alive.append(array.tensor)
        values += array.triple()
    packed = (ctypes.c_int64 * len(values))(*values)
    threads.run(kernel.address, ctypes.addressof(packed), count)
    del alive


def _split(kernel: Kernel, graph: Graph, T: int, B: int) -> tuple[int, int]:
    """(threads, 1 to split the units or 0 the rows), from the work of a step."""
    most = threads.threads()
    sums = any(graph.nodes[i].op == "sum" for one in kernel.passes for i in one.nodes)
    work = sum(_work(one, graph) for one in kernel.passes) * B  # multiplications of one step
    if most == 1 or work * T < 400_000:
        return 1, 0
    if 4 * most <= B:
        return most, 0
    if not sums and work >= 200_000:
        return most, 1
    return (min(most, B), 0) if B > 1 else (1, 0)


def _work(one: Pass, graph: Graph) -> int:
    units = graph.sizes[one.size]
    products = 0
    if one.product:
        depth = sum(graph.sizes[graph.nodes[i].size] for i in one.product.sources)
        products = depth * len(one.product.results) * units
    return products + 20 * len(one.nodes) * units


def backward(
    program: Program,
    done: Done,
    outside: Mapping[str, Tensor | None],
    last: Mapping[str, Tensor | None],
    to_input: bool = True,
) -> Gradients:
    """All gradients, from those of the states after every step (`outside`, [T, B, n]) and after the last one."""
    plan, machine = program.plan, program.machine
    definition, graph = plan.definition, plan.gradient.graph
    x = done.inputs["x"]
    T, B = x.shape[:2]
    kernel = program.backward(done.ids is not None)
    arrays = {}
    for i, a in done.arrays.items():
        # The loop goes the other way: from what was the last step.
        arrays[i] = Array(a.tensor, a.offset + (T - 1) * a.step, a.row, -a.step)
    grads: dict[Slot, Array] = {}
    carried: dict[str, Tensor] = {}
    for name, i in graph.find("grad").items():
        units = definition.state_size(name)
        width = width_of(units, machine)
        now = torch.zeros(B, width)
        if (end := last.get(name)) is not None:
            now[:, :units] = end
        carried[name] = now
        flow = plan.gradient.states[name]
        assert flow is not None
        for slot in (Slot(i, "carried"), Slot(flow, "carried")):
            grads[slot] = Array(now, 0, width, 0)
        seed = outside.get(name)
        if seed is None:
            grads[Slot(i, "outside")] = Array(torch.zeros(width))
        else:
            grads[Slot(i, "outside")] = sequence(readable(seed, machine), not done.reverse)
    order = column_order(plan)
    widths = {i: width_of(graph.sizes[graph.nodes[i].size], machine) for i in order}
    total = sum(widths.values())
    kept = torch.empty(T, B, total)
    place, at = {}, 0
    for i in order:
        place[i] = at
        arrays[i] = sequence(kept, not done.reverse)
        arrays[i].offset += at
        at += widths[i]
    _call(kernel, graph, machine, arrays, done, T, B, not done.reverse, grads)
    states = {name: v[:, : definition.state_size(name)] for name, v in carried.items()}
    flat = kept.view(T * B, total)

    def columns(nodes: Sequence[int]) -> Tensor:
        """The kept gradients of some nodes side by side, [T * B, sum of units]; a view where they are neighbours."""
        units = [graph.sizes[graph.nodes[i].size] for i in nodes]
        first = place[nodes[0]]
        if all(place[i] == first + sum(units[:k]) for k, i in enumerate(nodes)):
            return flat.narrow(1, first, sum(units))
        return torch.cat([flat.narrow(1, place[i], n) for i, n in zip(nodes, units, strict=True)], 1)

    return after_loop(program, done, columns, states, to_input)
