"""minLSTM (Feng et al. 2024)."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, softplus, where


class MinLSTM(Equations):
    """f, i = sigmoid(W x_t + b),  n = W x_t + b,  h_t = f / (f + i) h_{t-1} + i / (f + i) n

    For: as `MinGRU`, with one more gate.

    Shapes: x [I], h [H]; weight_ih = W [3H, I], bias_ih = b [3H], in the order f i n.

    Options:
        positive: n + 1/2 where n > 0, else sigmoid(n), in place of n, as in `MinGRU`.
        forget_bias: added to the initial bias of f.

    The share f / (f + i) is computed as sigmoid(softplus(-i') - softplus(-f')) from what the gates were before their
    sigmoid: so it is right where both are almost zero.

    Source: L. Feng et al., "Were RNNs all we needed?", 2024. There is no cell state c and no output gate.
    """

    states = "h"
    keeps = "f -i"
    positive = False
    forget_bias = 0.0

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        a_f, a_i, n = self.linear("f i n", x, starts={"f": self.forget_bias})
        share = sigmoid(softplus(-a_i) - softplus(-a_f))
        n = where(n > 0, n + 0.5, sigmoid(n)) if self.positive else n
        return share * h + (1 - share) * n
