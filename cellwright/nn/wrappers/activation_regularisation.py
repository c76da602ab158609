"""Penalties on what a layer gives (Merity, McCann & Socher 2017): terms that are added to the loss."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..sequences import read
from .rates import factor_of


def activation_regularisation(
    output: Any, alpha: float, *, lengths: Sequence[int] | Tensor | None = None, batch_first: bool = False
) -> Tensor:
    """AR: alpha times the mean square of the output, over the valid steps; a scalar. The paper takes the dropped one.

    output: [T, B, n], or [B, T, n] with batch_first, [T, n] or a PackedSequence. OptionError: alpha is negative.
    """
    values, valid, _ = _steps(output, lengths, None, batch_first)
    return factor_of("alpha", alpha) * _mean(values.square(), valid)


def temporal_activation_regularisation(
    output: Any,
    beta: float,
    *,
    lengths: Sequence[int] | Tensor | None = None,
    reset: Tensor | None = None,
    batch_first: bool = False,
) -> Tensor:
    """TAR: beta times the mean square of h_t - h_{t-1}, over the valid steps within a sequence; a scalar.

    output: as for AR; without dropout in the paper. reset: of bool, laid out like it; true where a new sequence begins.
    """
    values, valid, reset = _steps(output, lengths, reset, batch_first)
    within = valid[1:] if reset is None else valid[1:] & ~reset[1:]
    return factor_of("beta", beta) * _mean((values[1:] - values[:-1]).square(), within)


def _steps(output: Any, lengths: Any, reset: Any, batch_first: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """[T, B, n] with zeros in the padding, and [T, B] of bool: where it is valid, where a sequence begins."""
    inner = output.data if isinstance(output, PackedSequence) else output
    features, like = (inner.shape[-1], inner) if isinstance(inner, Tensor) and inner.dim() else (0, torch.empty(0))
    batch = read(output, lengths, reset, input_size=features, batch_first=batch_first, like=like, owner="a penalty")
    every = torch.ones(batch.x.shape[:2], dtype=torch.bool, device=batch.x.device)
    return batch.emptied(batch.x), every if batch.valid is None else batch.valid, batch.reset


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Over the valid steps; 0 where there is none."""
    total = values.masked_fill(~valid.unsqueeze(-1), 0.0).sum()
    return total / (valid.sum() * values.shape[-1]).clamp(min=1)
