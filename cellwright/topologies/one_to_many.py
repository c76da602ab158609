"""1 to N: a sequence from one input."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, OptionError
from ..lang.cell import positive
from ..nn import Recurrent
from ..nn.sequences import valid_steps
from .masks import batched, one_step
from .states import kept, zero_state
from .topology import Topology

FORMS = ("first", "every")


class OneToMany(Topology):
    """1 to N: a sequence from one input (music of a class, a curve from its parameters). Two forms, not equivalent:

        "first"   h_1 = recurrent(X, h_0),  h_t = recurrent(0, h_{t-1})     X at the first step, zeros after it
        "every"   h_t = recurrent(X, h_{t-1})                               X at every step
                  y_t = V h_t + c

    Both are one call of the layer for all steps. With `feedback`, the steps after the first one of the form "first"
    take what the net itself gave, x_t = feedback(y_{t-1}): one call per step, as each waits for the one before it.

    Args:
        form: "first" or "every".
        feedback: from y [B, K] to the next input: [B, I], or integers [B]; such as `nn.Identity()` where K = I,
            `nn.Softmax(-1)`, `lambda y: y.argmax(-1)`. None: zeros.
        recurrent, output, input: see `Topology`; with feedback, `recurrent` has one direction.
    """

    def __init__(
        self,
        recurrent: Recurrent,
        output: int | nn.Module,
        *,
        form: str = "first",
        feedback: Callable[[Tensor], Tensor] | None = None,
        input: nn.Module | None = None,
    ) -> None:
        super().__init__(recurrent, output, input=input)
        if form not in FORMS:
            raise OptionError(f"got form={form!r}, expected {' or '.join(FORMS)}")
        if feedback is not None and form != "first":
            raise OptionError('got feedback with form="every", where the input is X at every step; use form="first"')
        if feedback is not None and recurrent.bidirectional:
            raise OptionError(
                "got feedback with a bidirectional layer, whose outputs need all steps; use one direction"
            )
        self.form, self.feedback = form, feedback

    def forward(
        self, x: Tensor, steps: int, state: Any = None, *, lengths: Sequence[int] | Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One input for each sequence to `steps` outputs.

        Args:
            x: X, [B, I], or integers [B] for one-hot vectors.
            steps: T, at least 1.
            state: before the first step, as in `Recurrent`.
            lengths: [B] steps of each sequence, 0 to T.

        Returns:
            y: [T, B, K], zero beyond the lengths.
            state: after the last valid step.

        InputError: wrong shapes, dtypes, steps or lengths.
        """
        owner = type(self).__name__
        x, _ = self._read(one_step(x, owner), None)  # [1, B, ...]
        try:
            T = positive("steps", steps)
        except OptionError as error:
            raise InputError(str(error)) from None
        valid = valid_steps(lengths, T, x.shape[1], x.device)
        if self.feedback is not None:
            return self._feed_back(self.feedback, x, T, state, valid)
        if self.form == "every":
            x = x.expand(T, *x.shape[1:])
        else:
            x = x if x.is_floating_point() else self._one_hot(x)
            x = torch.cat([x, x.new_zeros(T - 1, *x.shape[1:])])
        output, state = self.recurrent(x, state, lengths=lengths)
        return self._write(output, valid), state

    def _one_hot(self, x: Tensor) -> Tensor:
        """Vectors for integers: no integer stands for the zero that follows."""
        count = self.recurrent.input_size
        if ((x < 0) | (x >= count)).any():
            raise InputError(f"got the integers {x.flatten().tolist()} as input, expected 0 to {count - 1}")
        like = next(self.recurrent.parameters(), torch.empty(0))
        return F.one_hot(x.long(), count).to(like.dtype)

    def _feed_back(
        self, feedback: Callable[[Tensor], Tensor], x: Tensor, T: int, state: Any, valid: Tensor | None
    ) -> tuple[Tensor, Any]:
        state = zero_state(self.recurrent, x.shape[1]) if state is None else state
        outputs: list[Tensor] = []
        for t in range(T):
            if t:
                x = batched(one_step(feedback(outputs[-1]), type(self).__name__), type(self).__name__)
            h, after = self.recurrent(x, state)
            state = after if valid is None else kept(valid[t], after, state)
            outputs.append(self._write(h, None).squeeze(0))
        y = torch.stack(outputs)
        return (y if valid is None else y.masked_fill(~valid.unsqueeze(-1), 0)), state
