"""What follows the loop back: gradients of the inputs and of the weights, as large products over all steps."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...lang.plan import Plan, Stage
from ..to_torch import Gradients, Step, begin
from .memory import side_by_side
from .outer import outer
from .program import Program

if TYPE_CHECKING:
    from .run import Done


def column_order(plan: Plan) -> list[int]:
    """The order of the kept gradients in memory: those that one product after the loop takes are neighbours."""
    kept = set(plan.backward.kept)
    order: dict[int, None] = {}
    shares = sorted(plan.backward.weights, key=lambda w: (w.source is None, -len(w.gradients)))
    for share in shares:
        order |= dict.fromkeys(i for i in share.gradients if i in kept)
    order |= dict.fromkeys(plan.backward.kept)
    return list(order)


def after_loop(
    program: Program,
    done: "Done",
    columns: Callable[..., Tensor],
    states: dict[str, Tensor],
    to_input: Tensor | bool,
) -> Gradients:
    """What follows the loop: gradients of the inputs and of the weights.

    `to_input`: whether the gradient of x is wanted, or that gradient. `columns(nodes, as_operand)`: the kept gradients
    of some nodes side by side, [N, sum of units].
    """
    plan = program.plan
    definition, graph, back = plan.definition, plan.gradient.graph, plan.backward
    x, kept = done.inputs["x"], set(back.kept)
    wanted = plan.gradient.inputs["x"] if to_input is True and x.is_floating_point() else None
    late = {i for share in back.weights for i in share.gradients if i not in kept}
    values: dict[int, Tensor] = {}
    if late or wanted is not None:
        needed = late | ({wanted} if wanted is not None else set())
        step = _stages_after(program, done, columns, next(iter(states.values())))
        rows = {i: step.row(i, program.units(i)) for i in needed}
        values = {i: v.flatten(0, 1) for i, v in rows.items()}
    weights: dict[str, Tensor] = {}
    sums: dict[tuple[int, ...], Tensor] = {}
    for share in back.weights:
        param = definition.params[share.name]
        units = [graph.sizes[param.slices[part]] for part in share.parts]
        product = share.source is not None and (
            x.is_floating_point() or graph.nodes[share.source].op != "input"  # an integer adds a row to its column
        )
        if kept.issuperset(share.gradients):
            g = columns(share.gradients, product)
        else:
            g = torch.cat([values[i] if i in values else columns([i]) for i in share.gradients], 1)
        if share.source is None:
            known = sums.get(share.gradients)
            # The long side to the right, where a register holds many numbers of a row.
            ones = g.new_ones(len(g), 1)
            found = outer(ones, g, program.machine).squeeze(0) if known is None else known.clone()
            sums[share.gradients] = found
        elif product:
            source = _source(done, share.source)
            if g.dtype == source.dtype == torch.float32:
                found = outer(g, side_by_side(source), program.machine)
            else:
                found = (g.to(torch.bfloat16).t() @ source.to(torch.bfloat16)).float()
        else:
            found = g.new_zeros(definition.input_size, g.shape[1]).index_add_(0, x.flatten(), g).t()
        if share.parts == tuple(param.slices) and share.name not in weights:
            weights[share.name] = found
            continue
        if share.name not in weights:
            weights[share.name] = torch.zeros_like(done.weights[share.name])
        at = 0
        for part, n in zip(share.parts, units, strict=True):
            weights[share.name].narrow(0, param.rows(part, graph.sizes)[0], n).add_(found.narrow(0, at, n))
            at += n
    weights |= {name: torch.zeros_like(w) for name, w in done.weights.items() if name not in weights}
    into = {} if wanted is None else {"x": values[wanted].view(*x.shape)}
    if isinstance(to_input, Tensor):
        into["x"] = to_input
    return Gradients(into, states, weights)


def _stages_after(program: Program, done: "Done", columns: Callable[..., Tensor], like: Tensor) -> Step:
    """Carry out the stages after the loop, over all steps at once."""
    plan, graph, back = program.plan, program.plan.gradient.graph, program.plan.backward
    T, B = done.inputs["x"].shape[:2]
    step = begin(plan, graph, done.weights, done.inputs, like)
    step.lead = (T, B)
    known = {*done.nodes, *(i for i, a in done.frame.leaves.items() if a.name == "hoisted" and a.name in done.tensors)}
    step.values |= {i: _all_steps(done, i) for i in known if graph.nodes[i].op != "input"}
    step.values |= {i: columns([i]).view(T, B, program.units(i)) for i in back.kept}
    for stage in back.after:
        if stage.product and set(back.kept).issuperset(stage.product.sources):
            rows = step.rows(stage.product.matrix, stage.product.parts)
            into = columns(stage.product.sources) @ rows
            step.values[stage.product.results[0]] = into.view(T, B, into.shape[1])
        elif stage.product:
            step.product(stage.product)
        step.stage(Stage(None, stage.nodes))
    return step


def _all_steps(done: "Done", i: int) -> Tensor | float:
    """A value from before the loop at all steps: of a table, the rows that were looked up."""
    if i not in done.nodes:
        shape, units = done.frame.shape, done.frame.program.units(i)
        memory = done.tensors["hoisted"].narrow(1, done.frame.place[i], units)
        if shape.ragged:
            return memory.unsqueeze(1)
        if shape.inner:
            return memory.view(shape.steps, shape.batch, -1)
        return memory.view(shape.batch, shape.steps, -1).transpose(0, 1)
    value = done.nodes[i]
    if "ids" in done.tensors and i in done.frame.program.tabled and isinstance(value, Tensor):
        return value.squeeze(1)[done.tensors["ids"]]
    return value


def _source(done: "Done", i: int) -> Tensor:
    """What a matrix was applied to at all steps, [N, units]."""
    frame, shape = done.frame, done.frame.shape
    node, units = frame.graph.nodes[i], frame.program.units(i)
    if node.op == "input":
        given = done.tensors.get("narrow:x", done.inputs["x"]) if node.name == "x" else done.inputs[node.name]
        return given[..., :units].expand(*done.inputs["x"].shape[:2], units).reshape(shape.rows, units)
    if i not in frame.arrays:
        value = _all_steps(done, i)
        assert isinstance(value, Tensor)
        return value.expand(*done.inputs["x"].shape[:2], units).reshape(shape.rows, units)
    a = frame.operands.get(i) or frame.arrays[i]
    memory = done.tensors[a.name]
    if done.batch is not None and node.op == "state":
        return memory[done.batch.before, :units]
    first = a.offset + (shape.steps - 1) * a.step if a.step < 0 else a.offset
    return torch.as_strided(memory, (shape.rows, units), (a.row, 1), first)
