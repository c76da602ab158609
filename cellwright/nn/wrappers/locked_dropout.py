"""Dropout with one mask for all steps of a sequence (Gal & Ghahramani 2016; "locked": Merity et al. 2018)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ...errors import InputError
from .rates import kept_by_sequence, rate_of


class LockedDropout(nn.Module):
    """Dropout of whole features of a sequence: the same units are zero at all steps; in training only.

    On the inputs or the output of a layer; between layers as `Recurrent(..., dropout=LockedDropout(0.3))`.

    Args:
        rate: in [0, 1), the probability of a zero; the rest is scaled by 1 / (1 - rate).
        batch_first: batched sequences are [B, T, n] instead of [T, B, n].

    OptionError: no rate, or one outside of [0, 1).
    """

    def __init__(self, rate: Any = None, *, batch_first: bool = False) -> None:
        super().__init__()
        self.rate, self.batch_first = rate_of("rate", rate), bool(batch_first)

    def forward(self, x: Any, *, reset: Tensor | None = None) -> Any:
        """x [T, B, n] (or [B, T, n]), [T, n] or a PackedSequence, and the same again.

        reset: of bool, [T, B] like x: where a new sequence begins, with a mask of its own.
        """
        if not self.training or not self.rate:
            return x
        if isinstance(x, PackedSequence):
            if reset is not None:
                raise InputError("got reset with a PackedSequence, expected a padded tensor")
            sizes = x.batch_sizes.to(x.data.device)
            row = torch.cat([torch.arange(int(n), device=x.data.device) for n in sizes])
            mask = kept_by_sequence(self.rate, (1, int(sizes[0]), x.data.shape[1]), x.data)
            return x._replace(data=x.data * mask[0, row])
        if not isinstance(x, Tensor) or x.dim() not in (2, 3) or not x.is_floating_point():
            got = f"shape {list(x.shape)} and {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"got {got} as input of LockedDropout, expected floats [T, B, n] or [T, n]")
        turned = self.batch_first and x.dim() == 3
        if reset is not None and (not isinstance(reset, Tensor) or reset.shape != x.shape[:-1]):
            got = f"shape {list(reset.shape)}" if isinstance(reset, Tensor) else type(reset).__name__
            raise InputError(f"got reset of {got}, expected a tensor {list(x.shape[:-1])}")
        steps = x.transpose(0, 1) if turned else x if x.dim() == 3 else x.unsqueeze(1)
        starts = reset if reset is None else (reset.t() if turned else reset).reshape(steps.shape[:2]) != 0
        T, B, n = steps.shape
        dropped = steps * kept_by_sequence(self.rate, (T, B, n), steps, starts)
        return dropped.transpose(0, 1) if turned else dropped.view(x.shape)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.rate}{', batch_first=True' if self.batch_first else ''}"
