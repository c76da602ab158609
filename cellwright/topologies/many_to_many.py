"""One to one, and N to N: an output for every input."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .masks import one_step
from .topology import Topology


class ManyToMany(Topology):
    """N to N: an output at every step, of the same number of steps (labels of frames, the next value, the next letter).

        h_t = recurrent(x_t, h_{t-1})
        y_t = V h_t + c

    `ManyToMany(LSTM(10, 20), 5)` gives logits; softmax is in the loss (`sequence_cross_entropy`). See `Topology` for
    the arguments.
    """

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """x [T, B, I], or integers [T, B], to y [T, B, K], zero in the padding, and the state after the last valid one.

        `state`, `lengths` and `reset` as in `Recurrent`. InputError: wrong shapes, dtypes or lengths.
        """
        x, valid = self._read(x, lengths)
        output, state = self.recurrent(x, state, lengths=lengths, reset=reset)
        return self._write(output, valid), state


class OneToOne(Topology):
    """One to one: one input, one output, one step. From the zero state this is a feed-forward net of one hidden layer.

        h = recurrent(x, h_0)
        y = V h + c

    See `Topology` for the arguments.
    """

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """x [B, I], or integers [B], to y [B, K] and the state after the step. InputError: wrong shapes or dtypes."""
        x, _ = self._read(one_step(x, type(self).__name__), None)
        output, state = self.recurrent(x, state)
        return self._write(output, None).squeeze(0), state
