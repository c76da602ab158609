"""Minimal gated unit (Zhou et al. 2016)."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, tanh


class MGU(Equations):
    """f = sigmoid(W x_t + b + R h_{t-1} + b'),  n = tanh(W x_t + b + R (f h_{t-1}) + b'),  h_t = (1 - f) h_{t-1} + f n

    For: a GRU with one gate, which is reset and update at once, where weights are dear.

    Shapes: x [I], h [H]; weight_ih = W [2H, I], weight_hh = R [2H, H], biases [2H], in the order f n.

    Source: G.-B. Zhou et al., "Minimal gated unit for recurrent neural networks", 2016. f is the share of the *new*,
    where the z of our GRU is that of the past. Not to be confused with `MinGRU`, whose gate does not see h.
    """

    states = "h"
    keeps = "-f"

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        f, n = self.linear("f n", x)
        f = sigmoid(f + self.linear("f", h))
        n = tanh(n + self.linear("n", f * h))
        return (1 - f) * h + f * n
