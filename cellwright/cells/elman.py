"""The basic recurrent cell (Elman 1990)."""

from typing import Any

from ..lang import ACTIVATIONS, Equations


class Elman(Equations):
    """h_t = f(W x_t + b + R h_{t-1} + b')

    For: short memories at the least cost, and a measure for what gates are worth.

    Shapes: x [I], h [H]; weight_ih = W [H, I], weight_hh = R [H, H], biases [H].

    Options:
        activation: f, by its name in `cellwright.ACTIVATIONS`; tanh unless said otherwise.

    Source: J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990. Not to be confused with Jordan's net,
    which feeds back the output instead of the hidden state.
    """

    states = "h"
    activation = "tanh"

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        f = ACTIVATIONS[self.activation]
        return f(self.linear("h", x) + self.linear("h", h))
