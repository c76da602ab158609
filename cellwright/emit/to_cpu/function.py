"""The compiled loop in torch's autograd."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ...errors import TargetError
from ..attention import Memory
from .program import Program
from .run import Done, attended, backward, forward

NO_SECOND = (
    "the target 'cpu' has no gradient of a gradient; compute with the reference target: cellwright.use_target('torch')"
)


def scan(
    program: Program,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    reverse: bool,
    valid: Tensor | None = None,
    output_only: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The states after every step [T, B, n] and after the last one [B, n]; arguments as `to_torch.run`.

    Operands of products are bfloat16 under autocast and for tensors of that dtype, if the processor multiplies such;
    else all arithmetic is in float32. Each result has the dtype of its state. `output_only`: with lengths, of the
    states after every step give only the first, and zero in the padding.
    """
    states, last, _ = scan_with_memory(program, weights, inputs, state, reverse, valid, output_only, None)
    return states, last


def scan_with_memory(
    program: Program,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    reverse: bool,
    valid: Tensor | None,
    output_only: bool,
    memory: Memory | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """The same for equations that look into a memory, and the weights of its positions [T, B, S]."""
    leaves = (inputs["x"], *state.values(), *weights.values(), *(memory.tensors.values() if memory else ()))
    narrow = program.machine.bfloat16 and wants_bfloat16(leaves)
    # What runs in here has chosen its dtypes.
    with torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext():
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in leaves)):
            states, last, done = forward(
                program, weights, inputs, state, reverse, False, valid, narrow, output_only=output_only, memory=memory
            )
            kinds = {name: s.dtype for name, s in state.items()}
            found = None if memory is None else attended(done).to(memory.keys.dtype)
            return {n: v.to(kinds[n]) for n, v in states.items()}, {n: v.to(kinds[n]) for n, v in last.items()}, found
        masks = {name: v for name, v in inputs.items() if name != "x"}
        results = _Scan.apply(  # type: ignore[no-untyped-call]
            program, masks, reverse, valid, narrow, output_only, tuple(state), tuple(weights), memory, *leaves
        )
    names = list(program.plan.definition.states)
    *results, found = results
    n = len(results) - len(names)
    return dict(zip(names, results[:n], strict=False)), dict(zip(names, results[n:], strict=True)), found


def wants_bfloat16(tensors: Iterable[Tensor]) -> bool:
    """Whether the operands of products are to be bfloat16: under autocast, or as the tensors are."""
    return torch.is_autocast_enabled("cpu") or any(t.dtype == torch.bfloat16 for t in tensors)


_GIVEN = 9  # arguments of `_Scan` before the tensors that gradients flow to


class _Scan(torch.autograd.Function):
    """All steps as one operation. Its results share memory with what the way back reads: torch notices changes."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        program, masks, reverse, valid, narrow, output_only, states, weights, memory, x, *rest = arguments
        named_state = dict(zip(states, rest, strict=False))
        named_weights = dict(zip(weights, rest[len(states) :], strict=False))
        if memory is not None:
            memory = memory.with_tensors(dict(zip(memory.tensors, rest[-len(memory.tensors) :], strict=True)))
        inputs = {"x": x, **masks}
        every, last, done = forward(
            program,
            named_weights,
            inputs,
            named_state,
            reverse,
            True,
            valid,
            narrow,
            output_only=output_only,
            memory=memory,
        )
        results = (*map(_standing_alone, every.values()), *(s.clone() for s in last.values()))
        kinds = [s.dtype for s in named_state.values()]
        results = tuple(s.to(kind) for s, kind in zip(results, kinds[: len(every)] + kinds, strict=True))
        looked = () if memory is None else (_standing_alone(attended(done)).to(memory.keys.dtype),)
        ctx.program, ctx.done, ctx.names = program, done, (states, weights, tuple(memory.tensors) if memory else ())
        # The versions of these are checked on the way back.
        ctx.save_for_backward(x, *rest, *results[: len(every)], *looked)
        ctx.set_materialize_grads(False)
        return (*results, *(looked or (None,)))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        _ = ctx.saved_tensors
        done: Done = ctx.done
        states, weights, memory = ctx.names
        *of_states, of_attended = gradients
        n = len(of_states) - len(states)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            found = backward(
                ctx.program,
                done,
                dict(zip(states, map(_single, of_states[:n]), strict=False)),
                dict(zip(states, map(_single, of_states[n:]), strict=True)),
                ctx.needs_input_grad[_GIVEN],
                _single(of_attended),
            )
        result = [found.inputs.get("x"), *(found.states[s] for s in states), *(found.weights[w] for w in weights)]
        result += [found.memory[name] for name in memory]
        if torch.is_grad_enabled():
            anchor = torch.zeros((), requires_grad=True)
            result = list(_Once.apply(anchor, *result))  # type: ignore[no-untyped-call]
        return (*[None] * _GIVEN, *result)


def _standing_alone(view: Tensor) -> Tensor:
    """The same memory as a tensor of its own: callers may change it in place, as they may with torch.nn's results."""
    return view.new_empty(0).set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())


def _single(gradient: Tensor | None) -> Tensor | None:
    """In single precision."""
    return None if gradient is None else gradient.float()


class _Once(torch.autograd.Function):
    """The identity, with a clear word for whoever wants the gradient of a gradient."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *gradients: Any) -> Any:
        return gradients

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise TargetError(NO_SECOND)
