"""A cell that looks at a memory before every step (Bahdanau, Cho & Bengio 2015)."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ..cell import Cell
from ..scan import Program, scan
from ..sequences import read, read_beside, step_state
from ..weights import weights_of
from .attention import Attention


class Attentive(nn.Module):
    """A cell over sequences, each x_t beside the context that the output before has picked out of a memory.

    Args:
        cell: for inputs of I + M features, such as LSTMCell(10 + 6, 20).
        memory_size: M, features of one position of the memory; score: see `Attention`.
        batch_first: x, memory, reset, output and weights are [B, T, ...].
    """

    def __init__(self, cell: Cell, memory_size: int, *, score: str = "additive", batch_first: bool = False) -> None:
        super().__init__()
        most = cell.input_size - 1 if isinstance(cell, Cell) and list(cell.parameters()) else 0
        if memory_size not in range(1, most + 1):
            raise OptionError(f"got memory_size={memory_size!r} for {cell!r}, expected such as 6 for LSTMCell(16, 20)")
        self.cell, self.memory_size, self.batch_first = cell, memory_size, bool(batch_first)
        self.attention = Attention(cell.definition().output_size, memory_size, score, next(cell.parameters()))
        #: The equations of a step, with the look into the memory.
        self.definition = self.attention.equations(cell.definition(), memory_size)
        self._program = Program(self.definition)

    def forward(self, x: Tensor, memory: Tensor, state: Any = None, *, lengths: Any = None, memory_lengths: Any = None,
                reset: Tensor | None = None) -> tuple[Any, Any, Any]:  # fmt: skip
        """x [T, B, I] and memory [S, B, M] to output [T, B, P], the last state, and the weights a [T, B, S].

        state: as the cell takes it; None: zero. lengths, memory_lengths: [B] valid steps and positions; beyond them
        output and weights are zero, and with no position the context is. reset: [T, B], as for `Recurrent`.
        """
        like, I = next(self.cell.parameters()), self.cell.input_size - self.memory_size
        common: dict[str, Any] = {"batch_first": self.batch_first, "like": like, "owner": "Attentive"}
        steps = read(x, lengths, reset, input_size=I, **common)
        places = read_beside(steps, x, memory, memory_lengths, input_size=self.memory_size, **common)
        own = self.cell.definition()
        before = step_state(own, state, steps.x.shape[1], like, "Attentive")
        found = scan(
            self._program,
            weights_of(self.cell, own) | self.attention.weights,
            F.pad(steps.x, (0, self.memory_size)),
            dict(zip(own.states, before, strict=True)),
            valid=steps.valid,
            reset=steps.reset,
            memory=self.attention.memory(places.emptied(places.x), places.valid),
        )
        last, (output, a) = tuple(found.last.values()), map(steps.lay_out, (found.output, found.weights))
        return output, last if len(last) > 1 else last[0], a
