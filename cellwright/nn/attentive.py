"""A cell that looks at a memory before every step (Bahdanau, Cho & Bengio 2015)."""

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OptionError
from ..lang.cell import flag
from .attended import Attended
from .cell import Cell
from .recurrent import Recurrent
from .sequences import read, read_beside, step_state
from .wrappers.attention import Attention


class Attentive(nn.Module):
    """A cell over sequences, each x_t beside the context that the output before has picked out of a memory.

    Args:
        cell: for inputs of I + M features, such as LSTMCell(10 + 6, 20); or one layer of `Recurrent` with its wrappers.
        memory_size: M, features of one position of the memory; score: see `Attention`.
        batch_first: x, memory, reset, output and weights are [B, T, ...].
    """

    def __init__(self, cell: Any, memory_size: int, *, score: str = "additive", batch_first: bool = False) -> None:
        super().__init__()
        layer = Recurrent([cell]) if isinstance(cell, Cell) else cell
        if not (isinstance(layer, Recurrent) and Attended.fits(layer) and layer._weights(0, "")) or layer.batch_first:
            raise OptionError(f"got {cell!r} to look into a memory, expected a cell or a layer, as LSTMCell(16, 20)")
        if type(memory_size) is not int or not 0 < memory_size < layer.input_size:
            raise OptionError(f"got memory_size={memory_size!r} for {cell!r}, expected such as 6 for LSTMCell(16, 20)")
        self.recurrent, self.memory_size, self.batch_first = layer, memory_size, flag("batch_first", batch_first)
        self.input_size, self.output_size = layer.input_size - memory_size, layer.output_size
        self.attention = Attention(self.output_size, memory_size, score, next(layer.parameters()))
        self.attended = Attended(layer, lambda d: self.attention.equations(d, memory_size))

    def forward(self, x: Tensor, memory: Tensor, state: Any = None, *, lengths: Any = None, memory_lengths: Any = None,
                reset: Tensor | None = None) -> tuple[Any, Any, Any]:  # fmt: skip
        """x [T, B, I], or integers [T, B], and memory [S, B, M] to output [T, B, P], last state, weights a [T, B, S].

        state: [B, units] each; None: zero, or what was learned. lengths, memory_lengths: [B] valid steps and positions;
        beyond them output and weights are zero, and with no position the context is. reset: as for `Recurrent`.
        """
        layer, M = self.recurrent, self.memory_size
        like = next(layer.parameters())
        common: dict[str, Any] = {"batch_first": self.batch_first, "like": like, "owner": "Attentive"}
        steps = read(x, lengths, reset, input_size=self.input_size, **common)
        places = read_beside(steps, x, memory, memory_lengths, input_size=M, **common)
        features = steps.x if steps.x.dim() == 3 else F.one_hot(steps.emptied(steps.x), self.input_size).to(like.dtype)
        if state is None:
            before = layer._initial(0, "", features.shape[1], like)
        else:
            before = step_state(layer.definitions[0], state, features.shape[1], like, "Attentive")
        held = self.attention.memory(places.emptied(places.x), places.valid)
        found = self.attended(layer, self.attention.weights, held, replace(steps, x=F.pad(features, (0, M))), before)
        last, (output, a) = tuple(found.last.values()), map(steps.lay_out, (found.output, found.weights))
        return output, last if len(last) > 1 else last[0], a
