"""The compiled loop in torch's autograd."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import TargetError
from .program import Program
from .run import Done, backward, forward


def scan(
    program: Program,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    reverse: bool,
    valid: Tensor | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The states after every step [T, B, n] and after the last one [B, n]; arguments as `to_torch.run`, in float32."""
    leaves = (inputs["x"], *state.values(), *weights.values())
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in leaves)):
        states, last, _ = forward(program, weights, inputs, state, reverse, False, valid)
        return states, last
    masks = {name: v for name, v in inputs.items() if name != "x"}
    results = _Scan.apply(  # type: ignore[no-untyped-call]
        program, masks, reverse, valid, tuple(state), tuple(weights), *leaves
    )
    names = list(program.plan.definition.states)
    n = len(names)
    return dict(zip(names, results[:n], strict=True)), dict(zip(names, results[n:], strict=True))


class _Scan(torch.autograd.Function):
    """All steps as one operation. Its results share memory with what the way back reads: torch notices changes."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        program, masks, reverse, valid, states, weights, x, *rest = arguments
        named_state = dict(zip(states, rest, strict=False))
        named_weights = dict(zip(weights, rest[len(states) :], strict=True))
        every, last, done = forward(program, named_weights, {"x": x, **masks}, named_state, reverse, True, valid)
        results = (*map(_standing_alone, every.values()), *(s.clone() for s in last.values()))
        ctx.program, ctx.done, ctx.names = program, done, (states, weights)
        # The versions of these are checked on the way back.
        ctx.save_for_backward(x, *rest, *results[: len(states)])
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        _ = ctx.saved_tensors
        done: Done = ctx.done
        states, weights = ctx.names
        n = len(states)
        with torch.no_grad():
            found = backward(
                ctx.program,
                done,
                dict(zip(states, gradients[:n], strict=True)),
                dict(zip(states, gradients[n:], strict=True)),
                to_input=ctx.needs_input_grad[6],
            )
        result = [found.inputs.get("x"), *(found.states[s] for s in states), *(found.weights[w] for w in weights)]
        if torch.is_grad_enabled():
            anchor = torch.zeros((), requires_grad=True)
            result = list(_Once.apply(anchor, *result))  # type: ignore[no-untyped-call]
        return (*[None] * 6, *result)


def _standing_alone(view: Tensor) -> Tensor:
    """The same memory as a tensor of its own: callers may change it in place, as they may with torch.nn's results."""
    return torch.empty(0).set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())


class _Once(torch.autograd.Function):
    """The identity, with a clear word for whoever wants the gradient of a gradient."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *gradients: Any) -> Any:
        return gradients

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise TargetError(
            "the target 'cpu' has no gradient of a gradient; compute with the reference target: "
            "cellwright.use_target('torch')"
        )
