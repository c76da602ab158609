"""One cell with its weights, called one step at a time: `output, state = cell(x, state)`."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import CellError, InputError
from ..lang import Equations
from .scan import Program, scan, source
from .sequences import check_state, read, reference, state_values
from .weights import initialise, new_parameters, weights_of


class Cell(Equations, nn.Module):
    """Equations that own their weights: derive from it to write a cell. One call is one step in time.

        class Leaky(Cell):
            states = "h"

            def step(self, x, h):
                return 0.9 * h + 0.1 * tanh(self.linear("h", x) + self.linear("h", h))

        output, state = Leaky(3, 5)(torch.randn(8, 3))

    `Recurrent(Leaky, 3, 5)` runs it over sequences. See `cellwright.lang.Equations` for states, options and the words
    of the language. Weights start as U(-1/sqrt(H), 1/sqrt(H)).

    Args:
        input_size: I, features of one input.
        hidden_size: H, units.
        bias: True, "input" (one bias per gate, on the side of the input) or False.
        device, dtype: of the weights.
        options: values for the cell's options.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool | Literal["input"] = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, **options)
        self._program = Program(self.definition())
        for name, parameter in new_parameters(self.definition(), device, dtype).items():
            if hasattr(self, name):
                raise CellError(
                    f"{type(self).__name__} names a weight {name!r}, which every cell has; name it otherwise"
                )
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial weights."""
        initialise(self.definition(), weights_of(self, self.definition()))

    @property
    def starts_itself(self) -> bool:
        """Whether the class has initial values of its own, by overriding `reset_parameters`."""
        return type(self).reset_parameters is not Cell.reset_parameters

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step.

        Args:
            x: [B, I] or [I]; integers [B] or a single one stand for one-hot vectors.
            state: as returned by the step before, [B, units] or [units]: a tensor, or a tuple of tensors for a cell
                with several states; None: zero.

        Returns:
            output: [B, O] or [O], the first state.
            state: for the next step.
        """
        owner = type(self).__name__
        if not isinstance(x, Tensor):
            raise InputError(f"got a {type(x).__name__} as input of {owner}, expected a tensor")
        weights = weights_of(self, self.definition())
        like = reference(weights, x)
        single = x.dim() == (1 if x.is_floating_point() else 0)
        rows = x.unsqueeze(0) if single else x
        if rows.dim() != (2 if x.is_floating_point() else 1):
            raise InputError(f"got an input of shape {tuple(x.shape)} for one step of {owner}, expected [B, I] or [I]")
        batch = read(
            rows.unsqueeze(0), None, None, input_size=self.input_size, batch_first=False, like=like, owner=owner
        )
        before = {}
        sizes = {name: self.definition().state_size(name) for name in self.definition().states}
        values = [None] * len(sizes) if state is None else state_values(state, list(sizes), owner)
        for (name, units), value in zip(sizes.items(), values, strict=True):
            if value is None:
                before[name] = like.new_zeros(len(rows), units)
            else:
                value = check_state(name, value, (units,) if single else (len(rows), units), like)
                before[name] = value.unsqueeze(0) if single else value
        scanned = scan(self._program, weights, batch.x, before)
        after = tuple(s.squeeze(0) if single else s for s in scanned.last.values())
        return after[0], after[0] if len(after) == 1 else after

    def source(self, target: str | None = None) -> str:
        """The code that a target runs for the cell; see `Recurrent.source`."""
        return source({"": self._program}, target)

    def extra_repr(self) -> str:
        """What `print` shows."""
        shown = "".join(f", {k}={v!r}" for k, v in self.options.items() if v != self.defaults()[k])
        return f"{self.input_size}, {self.hidden_size}{shown}"
