"""How much of a loss goes back to the states of earlier steps: vanishing and exploding gradients, as numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..lang import with_perturbation
from .recurrent import Recurrent
from .scan import Program, use_target
from .sequences import Sequences


def gradient_norms(layer: Recurrent, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The norm of dL/ds_{t-k} for every state s of a layer, k = 0, 1, ... steps before the last one.

        gradient_norms(lstm, lambda: lstm(x)[0][-1].sum(-1))    # {"h_l0": [T, B], "c_l0": [T, B]}

    It is the Euclidean norm over the units, and dL is all that changes when the state after that step changes: by way
    of later states, of the output and of the layers above. States of one step stand side by side: dL/dc of an LSTM
    leaves out that h of the same step was made of c, so that it is zero at k = 0 where only the output counts.

    Args:
        layer: in training or evaluation, as it is; the reference target runs it.
        loss: calls the layer once, itself or through a model, and gives the losses [B] of the sequences, or their sum.

    Returns:
        By state, layer and direction, named as in `trace`: [T, B], or [T] for unbatched input, in float64. Row k is k
        steps before the last valid step of each sequence, in the direction in which the layer reads; NaN where the
        sequence has no such step.

    Source: S. Hochreiter 1991; Y. Bengio, P. Simard & P. Frasconi, "Learning long-term dependencies with gradient
    descent is difficult", 1994; R. Pascanu, T. Mikolov & Y. Bengio 2013.

    InputError: `loss` does not call the layer once, or gives what has no gradient.
    """
    if not isinstance(layer, Recurrent):
        raise InputError(f"got a {type(layer).__name__}, expected a layer of cellwright, such as LSTM(10, 20)")
    watch = _Watch()
    layer._watch = watch
    try:
        with use_target("torch"), torch.enable_grad():
            found: Any = loss()
            total = found.sum() if isinstance(found, Tensor) else None
    finally:
        del layer._watch
    if watch.batch is None or total is None or not total.requires_grad:
        got = "it did not call the layer" if watch.batch is None else "its result has no gradient"
        raise InputError(f"got a loss to look back from, but {got}; expected losses [B] that the layer's output makes")
    gradients = torch.autograd.grad(total, list(watch.added.values()), allow_unused=True)
    return {
        name: watch.aligned(name, torch.zeros_like(zeros) if gradient is None else gradient)
        for (name, zeros), gradient in zip(watch.added.items(), gradients, strict=True)
    }


class _Watch:
    """Adds zeros to every state after every step: their gradients are those of the states."""

    def __init__(self) -> None:
        self.added: dict[str, Tensor] = {}
        self.batch: Sequences | None = None

    def __call__(
        self, place: str, program: Program, before: dict[str, Tensor], batch: Sequences
    ) -> tuple[Program, dict[str, Tensor]]:
        if not len(batch.x):  # asks for the form of a state only
            return program, {}
        if self.batch is not None and self.batch is not batch:
            raise InputError("got a loss that calls the layer more than once; expected one call over all steps")
        self.batch = batch
        zeros = {name: s.new_zeros(len(batch.x), *s.shape, requires_grad=True) for name, s in before.items()}
        self.added |= {f"{name}_{place}": value for name, value in zeros.items()}
        return Program(with_perturbation(program.definition)), {f"add_{name}": v for name, v in zeros.items()}

    def aligned(self, name: str, gradient: Tensor) -> Tensor:
        """Norms [T, B] by the steps before the last one, from gradients [T, B, units]."""
        assert self.batch is not None
        norms = gradient.double().norm(dim=-1)
        T, B = norms.shape
        steps, valid = torch.arange(T, device=norms.device).unsqueeze(1), self.batch.valid
        lengths = torch.full((B,), T, device=norms.device) if valid is None else valid.sum(0)
        at = steps.expand(T, B) if name.endswith("_reverse") else lengths - 1 - steps
        rows: Tensor = norms.gather(0, at.clamp(min=0)).masked_fill(steps >= lengths, torch.nan)
        return rows if self.batch.batched else rows.squeeze(1)
