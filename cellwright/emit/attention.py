"""A look into a memory: what the operation `attend` and its way back mean, in torch.

a_s = softmax over the positions s of score(q, k_s)
c   = sum_s a_s m_s                                        of an empty memory: zero
score: "additive", v . tanh(q + k_s); "dot", q . k_s
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def masked_softmax(scores: Tensor, valid: Tensor | None, dim: int) -> Tensor:
    """softmax over the valid scores; zero where they are not valid, everywhere if none is."""
    if valid is None:
        return scores.softmax(dim)
    # The lowest finite number instead of -inf: a row without a valid score would give NaN.
    return scores.masked_fill(~valid, torch.finfo(scores.dtype).min).softmax(dim).masked_fill(~valid, 0)


@dataclass(frozen=True)
class Memory:
    """What a look-up reads, the same at all steps.

    keys: [S, B, A]. values: [S, B, M], finite also in the padding. energy: [A], v of the additive score; None: the
    score is "dot". valid: [S, B] of bool, true at the first positions of each sequence; None: everywhere.
    """

    keys: Tensor
    values: Tensor
    energy: Tensor | None = None
    valid: Tensor | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What gradients flow to, by name."""
        found = {"keys": self.keys, "values": self.values}
        return found if self.energy is None else found | {"energy": self.energy}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "Memory":
        """The same positions with other `tensors`."""
        return replace(self, **tensors)

    def look(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """For queries [..., B, A] the contexts [..., B, M] and the weights a [..., S, B]."""
        query = query.unsqueeze(-3)
        if self.energy is None:
            scores = (query * self.keys).sum(-1)
        else:
            scores = (torch.tanh(query + self.keys) * self.energy).sum(-1)
        a = masked_softmax(scores, self.valid, -2)
        return (a.unsqueeze(-1) * self.values).sum(-3), a

    def back(self, query: Tensor, g: Tensor, seed: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradients of the query and of the `tensors`, from those of the context and of the weights (None: zero).

        This is the derivative that compiled targets follow; autograd has its own.
        """
        _, a = self.look(query)
        of_a = (g * self.values).sum(-1)
        of_a = of_a if seed is None else of_a + seed
        of_scores = (a * (of_a - (a * of_a).sum(0))).unsqueeze(-1)
        of_values = a.unsqueeze(-1) * g
        if self.energy is None:
            return (of_scores * self.keys).sum(0), {"keys": of_scores * query, "values": of_values}
        t = torch.tanh(query + self.keys)
        of_keys = of_scores * self.energy * (1 - t * t)
        return of_keys.sum(0), {"keys": of_keys, "values": of_values, "energy": (of_scores * t).sum((0, 1))}
