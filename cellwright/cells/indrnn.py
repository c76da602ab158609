"""Independently recurrent network (Li et al. 2018)."""

from typing import Any

from ..lang import ACTIVATIONS, Equations


class IndRNN(Equations):
    """h_t = f(W x_t + b + u h_{t-1})

    For: very long sequences and deep stacks; units see each other in the next layer only, so a step is no product.

    Shapes: x [I], h [H]; weight_ih = W [H, I], u [H], one weight per unit, bias_ih = b [H].

    Options:
        activation: f, by its name in `cellwright.ACTIVATIONS`; the paper's is relu.

    Source: S. Li et al., "Independently recurrent neural network (IndRNN)", CVPR 2018. The paper keeps |u| below
    2^(1/T) for sequences of T steps, and draws it near 1 in the last layer: set `u` after the cell is made.
    """

    states = "h"
    activation = "relu"

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        return ACTIVATIONS[self.activation](self.linear("h", x) + self.scale("u", h))
