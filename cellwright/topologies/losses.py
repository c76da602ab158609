"""Losses over the steps that count: padding has no part in them, whatever it holds."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..nn.sequences import valid_steps
from .masks import sequence


def sequence_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    lengths: Sequence[int] | Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The mean of -ln softmax(logits)[target] over all valid steps of the batch, in nats per symbol: a scalar.

    Args:
        logits: [T, B, V].
        targets: integers [T, B], 0 to V - 1 at the valid steps.
        lengths: [B] valid steps of each sequence; None: all.
        label_smoothing: as in torch's `cross_entropy`.

    InputError: shapes and lengths that do not fit, targets that are no symbols, no valid step at all.
    """
    valid = _valid(logits, 3, targets, 2, lengths)
    V = logits.shape[-1]
    if targets.is_floating_point():
        raise InputError(f"got targets of {targets.dtype}, expected integers [T, B]")
    rows, wanted = (logits.flatten(0, 1), targets.flatten()) if valid is None else (logits[valid], targets[valid])
    wrong = (wanted < 0) | (wanted >= V)
    if wrong.any():
        raise InputError(f"got the target {int(wanted[wrong][0])} at a valid step, expected 0 to {V - 1}")
    return F.cross_entropy(rows, wanted.long(), label_smoothing=label_smoothing)


def sequence_mse(outputs: Tensor, targets: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
    """The mean of (output - target)^2 over all features of all valid steps: a scalar.

    `outputs` and `targets` [T, B, ...], `lengths` [B] or None. InputError: shapes that differ, no valid step at all.
    """
    valid = _valid(outputs, outputs.dim() if isinstance(outputs, Tensor) else 0, targets, None, lengths)
    return F.mse_loss(outputs, targets) if valid is None else F.mse_loss(outputs[valid], targets[valid])


def _valid(outputs: Any, dims: int, targets: Any, target_dims: int | None, lengths: Any) -> Tensor | None:
    """The valid steps of outputs [T, B, ...] and targets that fit them."""
    outputs, targets = sequence(outputs, "a loss"), sequence(targets, "the targets of a loss")
    want = tuple(outputs.shape[: target_dims or dims])
    if outputs.dim() != dims or tuple(targets.shape) != want:
        raise InputError(
            f"got targets of shape {list(targets.shape)} for outputs of shape {list(outputs.shape)}, "
            + (f"expected {list(want)}" if outputs.dim() == dims else "expected logits [T, B, V] and targets [T, B]")
        )
    valid = valid_steps(lengths, outputs.shape[0], outputs.shape[1], outputs.device)
    if not (outputs.shape[0] * outputs.shape[1] if valid is None else valid.any()):
        raise InputError("got no valid step in the whole batch, expected at least one: there is nothing to average")
    return valid
