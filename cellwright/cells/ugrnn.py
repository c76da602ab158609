"""Update gate recurrent network (Collins et al. 2017)."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, tanh


class UGRNN(Equations):
    """n = tanh(W x_t + b + R h_{t-1} + b'),  g = sigmoid(...),  h_t = g h_{t-1} + (1 - g) n

    For: one gate and one product per step; as easy to train as a GRU in shallow nets.

    Shapes: x [I], h [H]; weight_ih = W [2H, I], weight_hh = R [2H, H], biases [2H], in the order n g.

    Options:
        forget_bias: added to the initial bias of g; the paper and TF1 add 1, at every call.

    Source: J. Collins, J. Sohl-Dickstein & D. Sussillo, "Capacity and trainability in recurrent neural networks",
    ICLR 2017. n is c in the paper. It is `JANET` with beta = 0.
    """

    states = "h"
    keeps = "g"
    forget_bias = 0.0

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        n, g = self.linear("n g", x, starts={"g": self.forget_bias}) + self.linear("n g", h)
        n, g = tanh(n), sigmoid(g)
        return g * h + (1 - g) * n
