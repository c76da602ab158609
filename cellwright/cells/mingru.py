"""minGRU (Feng et al. 2024)."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, where


class MinGRU(Equations):
    """z = sigmoid(W x_t + b),  n = W x_t + b,  h_t = (1 - z) h_{t-1} + z n

    For: the least that a gate can be; no step is a product, so long sequences cost little.

    Shapes: x [I], h [H]; weight_ih = W [2H, I], bias_ih = b [2H], in the order z n.

    Options:
        positive: n + 1/2 where n > 0, else sigmoid(n), in place of n: what the paper trains, as its scan works on
            logarithms. The loop here needs it only to agree with such weights.

    Source: L. Feng et al., "Were RNNs all we needed?", 2024. z is the share of the *new*, where the z of our GRU is
    that of the past. Not to be confused with `MGU`, the minimal gated unit, which multiplies h by a matrix.
    """

    states = "h"
    keeps = "-z"
    positive = False

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        z, n = self.linear("z n", x)
        z = sigmoid(z)
        n = where(n > 0, n + 0.5, sigmoid(n)) if self.positive else n
        return (1 - z) * h + z * n
