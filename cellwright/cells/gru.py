"""Gated recurrent unit (Cho et al. 2014), with the reset gate after or before the recurrent product."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, tanh


class GRU(Equations):
    """r, z = sigmoid(W x_t + b + R h_{t-1} + b'),  n = tanh(...),  h_t = (1 - z) n + z h_{t-1}

    where n sees r (R_n h + b'_n) with the reset after the product (cuDNN, torch, Keras 3), and R_n (r h) + b'_n with
    the reset before it (the paper, TF1). r = 0 ignores the past. z is the share of the past that is *kept*; the paper
    writes it so, many figures use the opposite sense.

    Shapes: x [I], h [H]; weight_ih = W [3H, I], weight_hh = R [3H, H], biases [3H], gates in the order r z n.

    Options:
        reset_after: True: one recurrent product per step. False: two, one after the other.

    Source: K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.
    """

    states = "h"
    reset_after = True

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        x_r, x_z, x_n = self.linear("r z n", x)
        if self.reset_after:
            h_r, h_z, h_n = self.linear("r z n", h)
        else:
            h_r, h_z = self.linear("r z", h)
        r = sigmoid(x_r + h_r)
        z = sigmoid(x_z + h_z)
        n = tanh(x_n + (r * h_n if self.reset_after else self.linear("n", r * h)))
        return (1 - z) * n + z * h
