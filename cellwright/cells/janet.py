"""JANET, just another network: an LSTM with nothing but the forget gate (van der Westhuizen & Lasenby 2018)."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, tanh


class JANET(Equations):
    """s = W x_t + b + R h_{t-1} + b',  g = tanh(...),  h_t = sigmoid(s) h_{t-1} + (1 - sigmoid(s - beta)) g

    For: half of the weights of an LSTM where the sequences are long and the forget biases are chosen for them.

    Shapes: x [I], h [H]; weight_ih = W [2H, I], weight_hh = R [2H, H], biases [2H], in the order f g. h is the paper's
    c: without an output gate they are one.

    Options:
        beta: how much more of the new is taken than of the old is forgotten; 0 gives `UGRNN`.
        forget_bias: added to the initial bias of f. The paper draws it from log U(1, T - 1), for T steps.

    Source: J. van der Westhuizen & J. Lasenby, "The unreasonable effectiveness of the forget gate", 2018.
    """

    states = "h"
    keeps = "f"
    beta = 1.0
    forget_bias = 0.0

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        s, g = self.linear("f g", x, starts={"f": self.forget_bias}) + self.linear("f g", h)
        f, g = sigmoid(s), tanh(g)
        return f * h + (1 - sigmoid(s - self.beta)) * g
