"""N to 1: one output for a whole sequence, and the ways to get one vector from many."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..emit.attention import masked_softmax
from ..errors import OptionError
from ..lang.cell import positive
from ..nn import Recurrent
from ..nn.sequences import valid_steps, without_padding
from .masks import sequence
from .topology import Topology, linear


class MeanPool(nn.Module):
    """The mean over the valid steps: p = sum_t h_t / T. Of nothing: zero."""

    def forward(self, h: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """h [T, B, F] to [B, F]. InputError: wrong shapes or lengths."""
        h, valid = _masked(h, lengths)
        if valid is None:
            return h.sum(0) / max(h.shape[0], 1)
        return h.sum(0) / valid.sum(0).clamp(min=1).unsqueeze(-1)


class MaxPool(nn.Module):
    """The largest value of each feature over the valid steps: p = max_t h_t. Of nothing: zero."""

    def forward(self, h: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """h [T, B, F] to [B, F]. InputError: wrong shapes or lengths."""
        h, valid = _masked(h, lengths)
        if not h.shape[0]:
            return h.sum(0)
        if valid is None:
            return h.amax(0)
        largest = h.masked_fill(~valid.unsqueeze(-1), torch.finfo(h.dtype).min).amax(0)
        return largest.masked_fill(~valid.any(0).unsqueeze(-1), 0)


class AttentionPool(nn.Module):
    """A mean with weights that the net learns: what a step says about itself decides how much it counts.

        u_t = tanh(W h_t + b)
        a_t = softmax over the valid t of q u_t
        p   = sum_t a_t h_t                              of nothing: zero

    Yang et al. 2016, Hierarchical Attention Networks for Document Classification.

    Args:
        features: F of h.
        units: A, of u; None: F.
    """

    def __init__(
        self,
        features: int,
        units: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        units = features if units is None else positive("units", units)
        self.hidden = nn.Linear(features, units, device=device, dtype=dtype)
        self.query = nn.Linear(units, 1, bias=False, device=device, dtype=dtype)

    def weights(self, h: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """a [T, B] of h [T, B, F]: each sequence's weights, which sum to 1, and zeros in the padding."""
        return self._weights(*_masked(h, lengths))

    def _weights(self, h: Tensor, valid: Tensor | None) -> Tensor:
        return masked_softmax(self.query(torch.tanh(self.hidden(h))).squeeze(-1), valid, 0)

    def forward(self, h: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """h [T, B, F] to [B, F]. InputError: wrong shapes or lengths."""
        h, valid = _masked(h, lengths)
        return (self._weights(h, valid).unsqueeze(-1) * h).sum(0)


def _masked(h: Tensor, lengths: Any) -> tuple[Tensor, Tensor | None]:
    h = sequence(h, "a pool")
    valid = valid_steps(lengths, h.shape[0], h.shape[1], h.device)
    return (h, None) if valid is None else (without_padding(h, valid), valid)


POOLS = ("last", "mean", "max", "attention")


class ManyToOne(Topology):
    """N to 1: one output for a sequence (its class, its score).

        h_t = recurrent(x_t, h_{t-1})
        y   = V pool(h_1 ... h_T) + c

    `ManyToOne(GRU(10, 20, bidirectional=True), 5)` gives logits; softmax is in the loss.

    Args:
        pool: "last": the output after the last valid step of each sequence and direction (the forward direction ends at
            step T, the other at step 1); of an empty sequence it is the initial state. "mean", "max", "attention": over
            the valid steps, `MeanPool`, `MaxPool`, `AttentionPool`; of an empty sequence they are zero. Or a module
            called as `pool(h, lengths)`.
        recurrent, output, input: see `Topology`.
    """

    def __init__(
        self,
        recurrent: Recurrent,
        output: int | nn.Module,
        *,
        pool: str | nn.Module = "last",
        input: nn.Module | None = None,
    ) -> None:
        super().__init__(recurrent, output, input=input)
        if not isinstance(pool, nn.Module) and pool not in POOLS:
            raise OptionError(f"got pool={pool!r}, expected {', '.join(POOLS)} or a module")
        self.pool = _pool(pool, recurrent)

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """x [T, B, I], or integers [T, B], to y [B, K] and the state after the last valid step.

        `state`, `lengths` and `reset` as in `Recurrent`. InputError: wrong shapes, dtypes or lengths.
        """
        x, _ = self._read(x, lengths)
        h, state = self.recurrent(x, state, lengths=lengths, reset=reset)
        pooled = self.recurrent.last_output(state) if self.pool is None else self.pool(h, lengths)
        return self._write(pooled, None), state


def _pool(pool: str | nn.Module, recurrent: Recurrent) -> nn.Module | None:
    if isinstance(pool, nn.Module):
        return pool
    if pool == "attention":
        like = linear(recurrent, 1, 1).weight
        return AttentionPool(recurrent.output_size, device=like.device, dtype=like.dtype)
    return {"last": None, "mean": MeanPool(), "max": MaxPool()}[pool]
