"""Multiplicative LSTM (Krause et al. 2016)."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, tanh


class MultiplicativeLSTM(Equations):
    """m = (W_mx x_t) (W_mh h_{t-1}),  i, f, o = sigmoid(W x_t + b + R m + b'),  g = tanh(...),  c and h as in `LSTM`

    For: texts by characters or bytes: each input symbol chooses a recurrent matrix of its own.

    Shapes: x [I], m, h and c [H]; weight_mx [H, I], weight_mh [H, H], weight_ih = W [4H, I], weight_hh = R [4H, H],
    which meets m, biases [4H]; gates in the order i f g o.

    Source: B. Krause et al., "Multiplicative LSTM for sequence modelling", 2016. Its short name mLSTM is also that of
    the matrix memory of xLSTM (Beck et al. 2024), which is another cell.
    """

    states = "h c"
    keeps = "f -i"

    def step(self, x: Any, h: Any, c: Any) -> Any:
        """One step: the next hidden state and cell state."""
        m = self.linear("m", x, matrix="mx", bias=False) * self.linear("m", h, matrix="mh", bias=False)
        i, f, g, o = self.linear("i f g o", x) + self.linear("i f g o", m)
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c = f * c + i * g
        return o * tanh(c), c
