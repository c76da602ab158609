"""The compiled loop as operators of torch: what `torch.compile` and `torch.export` put into their graphs.

Eager calls go to the same functions past torch's dispatcher (`function.py`). A graph names its cell by its definition
as JSON, so another process finds the kernels too.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, TargetError
from ...lang import Definition, Plan, with_reset
from .frame import memories
from .function import NO_SECOND, wants_bfloat16
from .memory import zeros
from .program import Program
from .run import Done, backward, forward, lay_out

PROGRAMS = 256  # rebuilt from their text beyond


@lru_cache(PROGRAMS)
def program_of(form: str, masks: int) -> Program:
    """The program of a cell for calls with so many masks: one more than its equations have is for resets.

    form: its definition as JSON.
    """
    definition = Definition.from_json(json.loads(form))
    return Program(Plan(with_reset(definition) if masks > len(definition.masks) else definition))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def refusal_of(form: str, masks: int) -> str:
    """Why a cell cannot run in the graph that is being traced, if so: transforms, cell, machine. Empty: it can."""
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return "it has no rules for the transforms of torch.func"
    program = program_of(form, masks)
    if program.refusal is None:
        try:
            program.forward(True, False, False)
        except TargetError as error:
            return str(error)
    return program.refusal or ""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _narrows(form: str, masks: int) -> bool:
    return program_of(form, masks).machine.bfloat16


def scan_traced(
    form: str,
    definition: Definition,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    reverse: bool,
    valid: Tensor | None,
    every: bool,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`function.scan` for a graph that is being traced; `every`: give all states after every step, not only the first.

    form: the definition as JSON.
    """
    x, names = inputs["x"], list(definition.states)
    masks = [v for name, v in inputs.items() if name != "x"]
    before, own = [state[name] for name in names], [weights[name] for name in definition.params]
    leaves = [x, *before, *own]
    training = torch.is_grad_enabled() and any(t.requires_grad for t in leaves)
    narrow = wants_bfloat16(leaves) and _narrows(form, len(masks))
    wanted = len(names) if every else 1
    results = scan(form, x, masks, before, own, valid, reverse, training, narrow, wanted)
    return dict(zip(names, results[:wanted], strict=False)), dict(zip(names, results[wanted:], strict=False))


_SCAN = (
    "(str form, Tensor x, Tensor[] masks, Tensor[] states, Tensor[] weights, Tensor? valid, bool reverse, "
    "bool training, bool narrow, int wanted) -> Tensor[]"
)
_BACK = (
    "(str form, Tensor x, Tensor[] masks, Tensor[] weights, Tensor? valid, Tensor[] left, Tensor?[] outside, "
    "Tensor?[] last, bool reverse, bool narrow, bool to_input) -> Tensor[]"
)


@torch.library.custom_op("cellwright::scan", mutates_args=(), schema=_SCAN, device_types="cpu")
def scan(
    form: str,
    x: Tensor,
    masks: list[Tensor],
    states: list[Tensor],
    weights: list[Tensor],
    valid: Tensor | None,
    reverse: bool,
    training: bool,
    narrow: bool,
    wanted: int,
) -> list[Tensor]:
    """All steps of a cell on the target "cpu".

    Args:
        form: the definition of the cell as JSON.
        x: [T, B, I], or integers [T, B] for one-hot vectors.
        masks: the other inputs of the equations [T, B, units], in their order; then the resets [T, B, 1] of 0 and 1.
        states: before the first step, [B, units] each.
        weights: in the order of the definition.
        valid: [T, B] of bool, true at the first steps of each sequence; None: everywhere.
        reverse: from the last step to the first.
        training: also give what `scan_back` needs.
        narrow: round operands of products to bfloat16.
        wanted: of how many states to give the values after every step.

    Returns:
        the first `wanted` states after every step [T, B, units], all states after the last one [B, units], both in the
        dtype of the states, and what `scan_back` takes as `left`.

    InputError: an integer that is no symbol.
    """
    program = program_of(form, len(masks))
    definition = program.plan.definition
    _check_symbols(x, valid, definition)
    with torch.autocast("cpu", enabled=False):
        named = dict(zip(definition.params, weights, strict=True))
        before = dict(zip(definition.states, states, strict=True))
        every, last, done = forward(
            program, named, _inputs(definition, x, masks), before, reverse, training, valid, narrow, True
        )
        dtype = states[0].dtype
        results = [*list(every.values())[:wanted], *last.values()]
        left = _left(done, x.shape[0] * x.shape[1]) if training else []
        return _own([*(r.to(dtype) for r in results), *left])


@torch.library.custom_op("cellwright::scan_back", mutates_args=(), schema=_BACK, device_types="cpu")
def scan_back(
    form: str,
    x: Tensor,
    masks: list[Tensor],
    weights: list[Tensor],
    valid: Tensor | None,
    left: list[Tensor],
    outside: list[Tensor | None],
    last: list[Tensor | None],
    reverse: bool,
    narrow: bool,
    to_input: bool,
) -> list[Tensor]:
    """The gradients of `scan`.

    Args:
        left: what it has left for this; form, x, masks, weights, valid, reverse and narrow are its arguments.
        outside: gradients of the states after every step, [T, B, units]; None or missing: zero.
        last: gradients of the states after the last step, [B, units].
        to_input: whether the gradient of x is wanted.

    Returns:
        gradients of x if wanted, of the states before the first step and of the weights, in float32.
    """
    program = program_of(form, len(masks))
    definition = program.plan.definition
    with torch.autocast("cpu", enabled=False):
        named = dict(zip(definition.params, weights, strict=True))
        done = _done(program, named, x, masks, valid, left, reverse, narrow)
        single = [[None if g is None else g.float() for g in gradients] for gradients in (outside, last)]
        of_every, of_last = (dict(zip(definition.states, g, strict=False)) for g in single)
        found = backward(program, done, of_every, of_last, to_input)
        into = found.inputs.get("x", zeros(*x.shape)) if to_input else None
        of_weights = [found.weights[name] for name in definition.params]
        result = [*(found.states[name] for name in definition.states), *of_weights]
        return _own(result if into is None else [into, *result])


def _inputs(definition: Definition, x: Tensor, masks: Sequence[Tensor]) -> dict[str, Tensor]:
    return {"x": x} | dict(zip(definition.masks, masks, strict=True))


def _check_symbols(x: Tensor, valid: Tensor | None, definition: Definition) -> None:
    """Kernels look up rows without asking."""
    if x.is_floating_point():
        return
    wrong = (x < 0) | (x >= definition.input_size)
    wrong = wrong if valid is None else wrong & valid
    if wrong.any():
        raise InputError(
            f"got the integer {int(x[wrong][0])} in the input; it stands for a one-hot vector, "
            f"and {definition.name} with input_size={definition.input_size} expects 0 to {definition.input_size - 1}"
        )


def _own(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Contiguous tensors with memory of their own, all of it: results of an operator may not share any."""
    taken: set[int] = set()
    found = []
    for t in tensors:
        t = t.contiguous()
        memory = t.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() > t.nbytes:
            t = t.clone()
        taken.add(t.untyped_storage().data_ptr())
        found.append(t)
    return found


# What a run leaves for the way back: what its loop has written, what torch has computed before the loop for every step,
# and among how many threads sequences with lengths were dealt. All sizes follow from those of the arguments.


def _left(done: Done, room: int) -> list[Tensor]:
    program, shape = done.frame.program, done.frame.shape
    found = [done.tensors[name] for name in done.frame.memories]
    for i in program.timed if shape.prepared == "torch" else ():
        value = done.nodes[i]
        assert isinstance(value, Tensor)
        memory = zeros(room, program.units(i))
        memory[: shape.rows].view(*done.inputs["x"].shape[:2], program.units(i)).copy_(value)
        found.append(memory)
    return [*found, torch.tensor([shape.threads], device="cpu")]


def _done(
    program: Program,
    weights: dict[str, Tensor],
    x: Tensor,
    masks: Sequence[Tensor],
    valid: Tensor | None,
    left: Sequence[Tensor],
    reverse: bool,
    narrow: bool,
) -> Done:
    """A run that has been done, from what it has left."""
    T, B = x.shape[:2]
    rows = T * B if valid is None else int(valid.sum())
    prepared = program.preparer(x.is_floating_point(), T * B)
    written = memories(program, True, prepared, narrow)
    nodes = dict(zip(program.timed, left[len(written) : -1], strict=False)) if prepared == "torch" else {}
    lead = (T, B) if valid is None else (rows, 1)
    made = {i: v[:rows].view(*lead, v.shape[1]) for i, v in nodes.items()}
    inputs = _inputs(program.plan.definition, x, masks)
    done = lay_out(program, weights, inputs, reverse, True, valid, narrow, int(left[-1]), made)
    for (name, one), memory in zip(written.items(), left, strict=False):
        done.tensors[name] = memory[: rows + B if one.started else rows]
    return done


@scan.register_fake
def _(
    form: str,
    x: Tensor,
    masks: list[Tensor],
    states: list[Tensor],
    weights: list[Tensor],
    valid: Tensor | None,
    reverse: bool,
    training: bool,
    narrow: bool,
    wanted: int,
) -> list[Tensor]:
    program = program_of(form, len(masks))
    definition = program.plan.definition
    (T, B), like = x.shape[:2], states[0]
    units = [definition.state_size(name) for name in definition.states]
    results = [like.new_empty(T, B, n) for n in units[:wanted]] + [like.new_empty(B, n) for n in units]
    if not training:
        return results
    prepared = program.preparer(x.is_floating_point(), T * B)
    for one in memories(program, True, prepared, narrow).values():
        results.append(like.new_empty(T * B + B if one.started else T * B, one.columns, dtype=one.dtype))
    for i in program.timed if prepared == "torch" else ():
        results.append(like.new_empty(T * B, program.units(i), dtype=torch.float32))
    return [*results, like.new_empty(1, dtype=torch.int64)]


@scan_back.register_fake
def _(
    form: str,
    x: Tensor,
    masks: list[Tensor],
    weights: list[Tensor],
    valid: Tensor | None,
    left: list[Tensor],
    outside: list[Tensor | None],
    last: list[Tensor | None],
    reverse: bool,
    narrow: bool,
    to_input: bool,
) -> list[Tensor]:
    definition = program_of(form, len(masks)).plan.definition
    (T, B), single = x.shape[:2], torch.float32
    into = [x.new_empty(T, B, definition.input_size, dtype=single)] if to_input else []
    states = [x.new_empty(B, definition.state_size(name), dtype=single) for name in definition.states]
    return [*into, *states, *(w.new_empty(w.shape, dtype=single) for w in weights)]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    form, x, masks, states, weights, valid, reverse, training, narrow, wanted = inputs
    left = output[wanted + len(states) :]
    ctx.mark_non_differentiable(*left)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, valid, *masks, *weights, *left)
    ctx.counts = (len(masks), len(weights), len(states), wanted)
    ctx.options = (form, reverse, training, narrow)


def _gradients(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    masks, weights, states, wanted = ctx.counts
    form, reverse, training, narrow = ctx.options
    if not training:
        raise TargetError("cellwright::scan was called with training=False, it has no gradient; pass training=True")
    x, valid, *saved = ctx.saved_tensors
    to_input = ctx.needs_input_grad[1]
    found = scan_back(
        form,
        x,
        saved[:masks],
        saved[masks : masks + weights],
        valid,
        saved[masks + weights :],
        gradients[:wanted],
        gradients[wanted : wanted + states],
        reverse,
        narrow,
        to_input,
    )
    into = found[0] if to_input else None
    rest = found[1:] if to_input else found
    return None, into, [None] * masks, rest[:states], rest[states:], None, None, None, None, None


def _refuse(ctx: Any, *gradients: Any) -> Any:
    raise TargetError(NO_SECOND)


scan.register_autograd(_gradients, setup_context=_remember)
scan_back.register_autograd(_refuse)
