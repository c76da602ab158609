"""Run a compiled plan on tensors: allocate what its frame asks for, call its kernels, and what surrounds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...lang.graph import ONE
from ...lang.plan import Stage
from ..attention import Memory
from ..to_torch import Gradients, begin
from . import threads
from .after import after_loop
from .frame import SEED, Frame, Shape
from .lengths import Batch, batch_of
from .memory import empty, filled, readable, side_by_side, width_of, zeros
from .program import Program

TURN = 2**20  # numbers between what comes before the loop and the loop, at a time
FRAMES = 64  # of one program; beyond, they are made anew


@dataclass
class Done:
    """What a forward run leaves for the way back.

    inputs: "x" and masks, [T, B, n]; with lengths [N, 1, n]. tensors: by the names of the frame. nodes: what torch
    has computed before the loop. units: of the keys and values of a memory.
    """

    frame: Frame
    batch: Batch | None
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    tensors: dict[str, Tensor]
    nodes: dict[int, Tensor | float]
    output_only: bool = False
    units: dict[str, int] = field(default_factory=dict)


def forward(
    program: Program,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    reverse: bool,
    training: bool,
    valid: Tensor | None = None,
    narrow: bool = False,
    whole: bool = False,
    output_only: bool = False,
    memory: Memory | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Done]:
    """Run the loop: states after every step [T, B, n] and the last ones [B, n], by name, and what the way back needs.

    The arguments are those of `to_torch.run`, in float32. `valid` [T, B]: true at the first steps of each sequence;
    in the padding the states stay as they are. `narrow`: operands of products are rounded to bfloat16 (x may be so
    already); sums and states are float32. `whole`: what a loop writes has its sizes without lengths, then zeros.
    `output_only`: with lengths, of the states after every step give only the first, and zero in the padding: the output
    of a layer. `memory`: for equations that look into one; `attended` gives the weights.
    """
    definition = program.plan.definition
    T, B = inputs["x"].shape[:2]
    done = lay_out(program, weights, inputs, reverse, training, valid, narrow, memory=memory)
    frame, batch, tensors = done.frame, done.batch, done.tensors
    done.output_only = output_only
    rows = frame.shape.rows
    if batch is not None:
        state = {name: v[batch.order] for name, v in state.items()}
    room = T * B if whole else rows
    for name, one in frame.memories.items():
        tensors[name] = empty(room + B if one.started else room, one.columns, dtype=one.dtype)
        if room > rows:
            tensors[name][-(room - rows) :] = 0
    for name in definition.results:
        lies, units = tensors[f"state:{name}"], definition.state_size(name)
        first = lies[rows:] if reverse and batch is None else lies[:B]
        first[:, :units] = state[name]
        if lies.shape[1] > units:
            first[:, units:] = 0
        if f"narrow:{name}" in frame.memories:
            operand = tensors[f"narrow:{name}"]
            (operand[rows:] if reverse and batch is None else operand[:B]).copy_(first)
    _loop(frame, tensors)
    every, last = {}, {}
    for n, name in enumerate(definition.results):
        lies = tensors[f"state:{name}"]
        units = definition.state_size(name)
        if batch is None:
            steps_of = lies.view(T + 1, B, -1)
            every[name] = steps_of[:T, :, :units] if reverse else steps_of[1:, :, :units]
            last[name] = steps_of[0 if reverse else T, :, :units]
        else:
            if not output_only:
                every[name] = lies.index_select(0, batch.after.flatten()).view(T, B, lies.shape[1])[..., :units]
            elif not n:
                every[name] = batch.spread(lies[B : B + rows, :units])
            last[name] = lies.index_select(0, batch.last)[:, :units]
    return every, last, done


def lay_out(
    program: Program,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    reverse: bool,
    training: bool,
    valid: Tensor | None,
    narrow: bool,
    shared: int = 0,
    made: Mapping[int, Tensor] | None = None,
    memory: Memory | None = None,
) -> Done:
    """A run before its loop; arguments as in `forward`.

    shared: number of threads among which sequences with lengths are dealt; 0: as many as there are. made: nodes before
    the loop that are known already (`timed`).
    """
    graph = program.plan.definition.graph
    T, B = inputs["x"].shape[:2]
    most = threads.threads()
    batch = None
    if valid is not None:
        batch = batch_of(valid, reverse, shared or (most if 64 * most <= T * B else 1))
        inputs = {name: v.flatten(0, 1)[batch.rows].unsqueeze(1) for name, v in inputs.items()}
        most = len(batch.table)
    weights = {name: w.float().contiguous() for name, w in weights.items()}
    inputs = {name: v.float() if v.is_floating_point() and name != "x" else v for name, v in inputs.items()}
    x = inputs["x"]
    rows = T * B if batch is None else batch.size
    inner = True
    prepared = program.preparer(x.is_floating_point(), T * B)
    if prepared == "kernel":
        if narrow:
            x16 = x.to(torch.bfloat16)
            # Pairs are read; the last one of a row must not reach into the next.
            x16 = _rows(F.pad(x16, (0, x.shape[2] % 2)) if x.shape[2] % 2 else x16, False)[0]
        x, inner = _rows(x.float(), len(inputs) == 1 and not narrow)
    elif prepared == "torch":
        x = x.float() if x.is_floating_point() else x
    given = {name: side_by_side(v) for name, v in (inputs | {"x": x}).items()}
    if prepared == "kernel" and len(inputs) > 1:
        # The kernel before the loop takes all inputs as rows at equal distances, like x.
        given |= {name: _rows(given[name], False)[0] for name in program.read_before(training, narrow) - {"x"}}
    nodes: dict[int, Tensor | float] = {}
    if prepared != "kernel":
        inputs_of_nodes = given | {"x": symbols(program)} if prepared == "table" else given
        nodes = before_loop(program, weights, inputs_of_nodes, made or {})
    tensors: dict[str, Tensor] = dict(weights)
    for name, v in given.items():
        if v.is_floating_point():
            tensors[f"input:{name}"] = v
        elif prepared == "table":
            tensors["ids"] = v.contiguous()
    if narrow and prepared == "kernel":
        tensors["narrow:x"] = x16
        given["narrow"] = x16
    for i, value in nodes.items():
        # An integer x that is used other than by a product comes back as one-hot vectors.
        given_as_is = graph.nodes[i].op == "input" and f"input:{graph.nodes[i].name}" in tensors
        rows_of_x = isinstance(value, Tensor) and value.is_floating_point() and graph.nodes[i].op != "param"
        # A number without rows follows from constants and counts: kernels compute that themselves.
        if isinstance(value, Tensor) and value.dim() and rows_of_x and not given_as_is:
            one = graph.nodes[i].size == ONE
            value = value if value.dim() == 1 or prepared == "table" else value.expand(*x.shape[:2], value.shape[-1])
            tensors[f"node:{i}"] = value if one else readable(value, program.machine)
    if batch is not None:
        tensors["table"] = batch.table
    strides = tuple((n, v.stride()) for n, v in given.items() if v.is_floating_point())
    steps = T if batch is None else batch.steps
    shape = Shape(steps, B, rows, batch is not None, reverse, training, prepared, inner, narrow, strides, most)
    if memory is not None:
        shape = replace(shape, positions=len(memory.keys))
        tensors |= _laid_out(memory, batch, program)
    frame = _frame(program, shape, {i: tensors[f"node:{i}"].stride() for i in nodes if f"node:{i}" in tensors})
    units = {} if memory is None else {name: v.shape[-1] for name, v in memory.tensors.items()}
    return Done(frame, batch, weights, inputs | {"x": x}, tensors, nodes, units=units)


def _laid_out(memory: Memory, batch: Batch | None, program: Program) -> dict[str, Tensor]:
    """A memory as kernels read it, with the sequences in the order of computation."""
    S, B = memory.keys.shape[:2]
    found = {"keys": memory.keys.transpose(0, 1), "values": memory.values.transpose(0, 1)}
    count = torch.full((B,), S, device="cpu") if memory.valid is None else memory.valid.sum(0)
    if batch is not None:
        found, count = {name: v[batch.order] for name, v in found.items()}, count[batch.order]
    if memory.energy is not None:
        found["energy"] = memory.energy
    return {"positions": count} | {f"memory:{name}": filled(v, program.machine) for name, v in found.items()}


def attended(done: Done) -> Tensor:
    """The weights of a look-up [T, B, S]; zero in the padding."""
    shape, memory = done.frame.shape, done.tensors["weights"]
    if done.batch is not None:
        return done.batch.spread(memory[: shape.rows, : shape.positions])
    return memory.view(shape.steps, shape.batch, -1)[..., : shape.positions]


def _loop(frame: Frame, tensors: dict[str, Tensor]) -> None:
    """What comes before the loop, and the loop: in turns of some steps, if what lies between them is large.

    Then it need not go through the machine's memory, and takes little of it.
    """
    shape, steps = frame.shape, frame.shape.steps
    loop = tensors | frame.loop.scratch() | {"temporary": empty(frame.temporary)}
    if frame.hoist is None:
        frame.loop.run(frame.kernel.address, loop)
        return
    per_step = shape.batch * frame.hoisted
    if shape.inner and not shape.ragged and "hoisted" not in tensors:
        steps = min(steps, max(1, TURN // max(1, per_step)))
    rows = shape.rows if steps == shape.steps else steps * shape.batch
    if "hoisted" not in loop:
        loop["hoisted"] = empty(rows, frame.hoisted)
    before = loop | frame.hoist.scratch()
    if shape.narrow:
        before["narrow:before"] = empty(rows, frame.before, dtype=torch.bfloat16)
    if steps == shape.steps:
        frame.hoist.run(frame.prepare_kernel.address, before)
        frame.loop.run(frame.kernel.address, loop)
        return
    for k in range(0, shape.steps, steps):
        count = min(steps, shape.steps - k)
        time = shape.steps - k - count if shape.reverse else k  # the first step of these, in the order of the inputs
        inputs = {
            name: time * shape.batch * frame.between_rows(t.stride()) * t.element_size()
            for name, t in before.items()
            if name.startswith(("input:", "narrow:x"))
        }
        packed = int(k > 0)
        frame.hoist.run(frame.prepare_kernel.address, before, moved=inputs, rows=count * shape.batch, packed=packed)
        here = {"hoisted": -4 * time * per_step}
        frame.loop.run(frame.kernel.address, loop, first=k, moved=here, steps=count, packed=packed)


def _rows(x: Tensor, alone: bool) -> tuple[Tensor, bool]:
    """x [T, B, I] with its inputs as rows at equal distances, and whether the batch goes within time.

    alone: whether x may be in the other order; masks beside it are not.
    """
    T, B = x.shape[:2]
    time, row, unit = x.stride()
    if unit == 1 or x.shape[2] == 1:
        if B == 1 or T == 1 or time == B * row:
            return x, True
        if alone and row == T * time:
            return x, False
    return x.contiguous(), True


def symbols(program: Program) -> Tensor:
    """Every symbol as an input x [V, 1]: what follows from it before the loop is a table."""
    return torch.arange(program.plan.definition.input_size, device="cpu").view(-1, 1)


def before_loop(
    program: Program, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], made: Mapping[int, Tensor]
) -> dict[int, Tensor | float]:
    """What comes before the loop, by torch, by node. `made`: what is known already."""
    plan, graph = program.plan, program.plan.definition.graph
    step = begin(plan, graph, weights, dict(inputs), empty(0))
    step.lead = tuple(inputs["x"].shape[:2])
    step.values |= made
    for stage in plan.forward.hoisted:
        product = None if stage.product is None or stage.product.results[0] in made else stage.product
        step.stage(Stage(product, tuple(i for i in stage.nodes if i not in made)))
    return {i: v for i, v in step.values.items() if graph.nodes[i].op not in ("const", "count")}


def _frame(program: Program, shape: Shape, nodes: dict[int, tuple[int, ...]]) -> Frame:
    key = shape, tuple(nodes.items())
    frame = program.frames.get(key)
    if frame is None:
        if len(program.frames) >= FRAMES:
            program.frames.clear()
        frame = program.frames[key] = Frame(program, shape, nodes)
    return frame


def backward(
    program: Program,
    done: Done,
    outside: Mapping[str, Tensor | None],
    last: Mapping[str, Tensor | None],
    to_input: bool = True,
    of_attended: Tensor | None = None,
) -> Gradients:
    """All gradients, from those of the states after every step (`outside`, [T, B, n]) and after the last one, and from
    that of the weights of a look-up, [T, B, S]."""
    definition = program.plan.definition
    frame, batch = done.frame, done.batch
    B, rows = frame.shape.batch, frame.shape.rows
    tensors = dict(done.tensors)
    early: dict[str, Tensor] = {}  # what reaches the state before the first step past the loop
    seeds: dict[str, Tensor | None] = {}
    for name, i in definition.results.items():
        seed, end = outside.get(name), last.get(name)
        units = definition.state_size(name)
        if seed is not None and batch is not None:
            if not done.output_only:
                beyond = seed.masked_fill(batch.valid.unsqueeze(-1), 0.0).sum(0)
                if frame.shape.reverse:
                    early[name] = beyond
                else:
                    end = beyond if end is None else end + beyond
            seed = seed.flatten(0, 1)[batch.rows].unsqueeze(1)
        carried = zeros(B, frame.width(i))
        if end is not None:
            carried[:, :units] = end if batch is None else end[batch.order]
        tensors[f"carried:{name}"] = carried
        if seed is not None:
            tensors[f"seed:{name}"] = seed = side_by_side(seed)
        seeds[name] = seed
    room = width_of(frame.shape.positions, program.machine)
    tensors["nothing"] = zeros(max(room, *map(frame.width, definition.results.values())))
    if program.looks:
        tensors |= _memory_back(tensors, B, room)
        if of_attended is not None:
            if batch is not None:
                of_attended = of_attended.flatten(0, 1)[batch.rows].unsqueeze(1)
            tensors["seed of weights"] = of_attended = side_by_side(of_attended)
        seeds[SEED] = of_attended
    back = frame.back(seeds)
    kept = tensors["kept"] = empty(rows, back.total)
    if frame.shape.narrow:
        operands = tensors["narrow:kept"] = empty(rows, back.beside, dtype=torch.bfloat16)
    if batch is not None:
        tensors["table"] = batch.back
    back.loop.run(back.kernel.address, tensors | back.loop.scratch() | {"temporary": empty(back.temporary)})
    states = {}
    for name in definition.results:
        found = tensors[f"carried:{name}"][:, : definition.state_size(name)]
        if batch is not None:
            found = torch.empty_like(found).index_copy_(0, batch.order, found)
        states[name] = found + early[name] if name in early else found

    def columns(nodes: Sequence[int], as_operand: bool = False) -> Tensor:
        """The kept gradients of some nodes side by side, [N, sum of units]; a view where they are neighbours.

        As an operand of products they may be bfloat16.
        """
        whole = operands if as_operand and frame.shape.narrow else kept
        units = [program.units(i) for i in nodes]
        first = back.place[nodes[0]]
        if all(back.place[i] == first + sum(units[:k]) for k, i in enumerate(nodes)):
            return whole.narrow(1, first, sum(units))
        return torch.cat([whole.narrow(1, back.place[i], n) for i, n in zip(nodes, units, strict=True)], 1)

    into: Tensor | bool = to_input
    if to_input and back.after is not None:
        tensors["into"] = empty(rows, back.width)
        back.after.run(back.after_kernel.address, tensors | back.after.scratch())
        x = done.inputs["x"]
        into = tensors["into"].view(*x.shape[:2], back.width)[..., : x.shape[2]]
    result = after_loop(program, done, columns, states, into)
    if batch is not None and "x" in result.inputs:
        result.inputs["x"] = batch.spread(result.inputs["x"].flatten(0, 1))
    for name in ("keys", "values"):
        if program.looks:
            found = tensors[f"of {name}"]
            found = found if batch is None else torch.empty_like(found).index_copy_(0, batch.order, found)
            result.memory[name] = found.transpose(0, 1)[..., : done.units[name]]
    if "of energy" in tensors:
        result.memory["energy"] = tensors["of energy"].sum(0)[: done.units["keys"]]
    return result


def _memory_back(tensors: Mapping[str, Tensor], B: int, room: int) -> dict[str, Tensor]:
    """Where the way back adds up the gradients of a memory, and room for those of the scores."""
    found = {f"of {name}": zeros(*tensors[f"memory:{name}"].shape) for name in ("keys", "values")}
    if "memory:energy" in tensors:
        found["of energy"] = zeros(B, len(tensors["memory:energy"]))
    return found | {"scores": empty(B, room)}
