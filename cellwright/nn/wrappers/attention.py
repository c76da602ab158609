"""Attention over a memory: with the scores of Bahdanau, Cho & Bengio 2015 and Luong, Pham & Manning 2015."""

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ..sequences import masked_softmax

SCORES = ("additive", "general", "dot")


class Attention(nn.Module):
    """a_s = softmax_s(score(h, m_s)) and context = sum_s a_s m_s, over the positions s of a memory m.

    score: "additive", v . tanh(W h + U m + b); "general", h . (U m); "dot", h . m.

    Args:
        units: P, of the state h.
        memory_size: M, features of a position of the memory.
        like: gives the dtype and device of the weights.

    OptionError: another score; "dot" with M other than P.
    """

    def __init__(self, units: int, memory_size: int, score: str, like: Tensor) -> None:
        super().__init__()
        if score not in SCORES or (score == "dot" and memory_size != units):
            known = ", ".join(SCORES)
            raise OptionError(f"got score={score!r}, expected one of {known}; 'dot' for a memory of {units} features")
        self.score = score
        if score != "dot":
            self.key = nn.Linear(memory_size, units, score == "additive", like.device, like.dtype)
        if score == "additive":
            self.query = nn.Linear(units, units, False, like.device, like.dtype)
            self.energy = nn.Linear(units, 1, False, like.device, like.dtype)

    def keys(self, memory: Tensor) -> Tensor:
        """What no state has a part in, once for all steps: [S, B, M] to [S, B, P]."""
        keys: Tensor = memory if self.score == "dot" else self.key(memory)
        return keys

    def forward(self, h: Tensor, keys: Tensor, memory: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """For h [B, P] the context [B, M] and the weights a [B, S], which are zero where `valid` [S, B] is false."""
        if self.score == "additive":
            scores = self.energy(torch.tanh(self.query(h) + keys)).squeeze(-1)
        else:
            scores = (h * keys).sum(-1)
        a = masked_softmax(scores, valid, 0)
        return (a.unsqueeze(-1) * memory).sum(0), a.t()

    def extra_repr(self) -> str:
        """What `print` shows."""
        return repr(self.score)
