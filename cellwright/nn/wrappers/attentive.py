"""A cell that looks at a memory before every step (Bahdanau, Cho & Bengio 2015): a loop in Python, so not fast."""

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError, OptionError
from ..cell import Cell
from ..sequences import read, step_state
from .attention import Attention


class Attentive(nn.Module):
    """A cell over sequences, each x_t beside the context that the output before has picked out of a memory.

    Args:
        cell: for inputs of I + M features, such as LSTMCell(10 + 6, 20).
        memory_size: M, features of one position of the memory; score: see `Attention`.
        batch_first: x, memory, output and weights are [B, T, ...].
    """

    def __init__(self, cell: Cell, memory_size: int, *, score: str = "additive", batch_first: bool = False) -> None:
        super().__init__()
        most = cell.input_size - 1 if isinstance(cell, Cell) and list(cell.parameters()) else 0
        if memory_size not in range(1, most + 1):
            raise OptionError(f"got memory_size={memory_size!r} for {cell!r}, expected such as 6 for LSTMCell(16, 20)")
        self.cell, self.memory_size, self.batch_first = cell, memory_size, bool(batch_first)
        self.attention = Attention(cell.definition().output_size, memory_size, score, next(cell.parameters()))

    def forward(
        self, x: Tensor, memory: Tensor, state: Any = None, *, lengths: Any = None, memory_lengths: Any = None
    ) -> tuple[Any, Any, Any]:
        """x [T, B, I] and memory [S, B, M] to output [T, B, P], the last state, and the weights a [T, B, S].

        state: as the cell takes it; None: zero. lengths, memory_lengths: [B] valid steps and positions; beyond them
        output and weights are zero, and with no position the context is.
        """
        like = next(self.cell.parameters())
        common: dict[str, Any] = {"batch_first": self.batch_first, "like": like, "owner": "Attentive"}
        steps = read(x, lengths, None, input_size=self.cell.input_size - self.memory_size, **common)
        places = read(memory, memory_lengths, None, input_size=self.memory_size, **common)
        (T, B), S = steps.x.shape[:2], places.x.shape[0]
        if not (steps.batched and places.batched and places.x.shape[1] == B and steps.x.dim() == places.x.dim() == 3):
            raise InputError(
                f"got {list(x.shape)}, a memory {list(memory.shape)}, expected floats [T, B, I], [S, B, M]"
            )
        now = step_state(self.cell.definition(), state, B, like, "Attentive")
        inputs, held = steps.emptied(steps.x), places.emptied(places.x)
        keys = self.attention.keys(held)
        outputs, weights = [like.new_zeros(0, *now[0].shape)], [like.new_zeros(0, B, S)]
        for t in range(T):
            context, a = self.attention(now[0], keys, held, places.valid)
            _, after = self.cell(torch.cat([inputs[t], context], -1), now if len(now) > 1 else now[0])
            now = steps.held(t, after if isinstance(after, tuple) else (after,), now)
            outputs.append(now[0].unsqueeze(0))
            weights.append(a.unsqueeze(0))
        output, chosen = (steps.lay_out(steps.emptied(torch.cat(v))) for v in (outputs, weights))
        return output, now if len(now) > 1 else now[0], chosen
