"""Attention over a memory: with the scores of Bahdanau, Cho & Bengio 2015 and Luong, Pham & Manning 2015."""

from torch import Tensor, nn

from ...emit.attention import Memory
from ...errors import OptionError
from ...lang import QUERY, Definition, with_attention

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

    def equations(self, definition: Definition, memory_size: int) -> Definition:
        """Those of a cell, whose x_t becomes [x_t; context_t] where zeros stand in x_t."""
        score = "additive" if self.score == "additive" else "dot"
        return with_attention(definition, score, definition.output_size, memory_size)

    @property
    def weights(self) -> dict[str, Tensor]:
        """What the equations have besides the cell's."""
        return {QUERY: self.query.weight} if self.score == "additive" else {}

    def memory(self, memory: Tensor, valid: Tensor | None) -> Memory:
        """What a call reads, from a memory [S, B, M] that is finite in the padding."""
        keys = memory if self.score == "dot" else self.key(memory)
        energy = self.energy.weight[0] if self.score == "additive" else None
        return Memory(keys, memory, energy, valid)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return repr(self.score)
