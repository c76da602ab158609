"""Gated recurrent unit (Cho et al. 2014), with the reset gate after or before the recurrent product."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, tanh


class GRU(Equations):
    """r, z = sigmoid(W x_t + b + R h_{t-1} + b'),  n = tanh(...),  h_t = (1 - z) n + z h_{t-1}

    where n sees r (R_n h + b'_n) with the reset after the product (cuDNN, torch, Keras 3), and R_n (r h) + b'_n with
    the reset before it (the paper, TF1). r = 0 ignores the past. z is the share of the past that is *kept*; the paper
    writes it so, many figures use the opposite sense.

    For: what an LSTM does, with three quarters of its weights and one state.

    Shapes: x [I], h [H]; weight_ih = W [3H, I], weight_hh = R [3H, H], biases [3H], gates in the order r z n.

    Options:
        reset_after: True: one recurrent product per step. False: two, one after the other.
        layer_norm: of each product, over r and z together and over n, as Ba et al. 2016 have it; with the reset after,
            r meets the normalised product. Shifts take the place of the biases.

    Source: K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.
    """

    states = "h"
    keeps = "z"
    reset_after = True
    layer_norm = False

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        r, z = self._product("r z", x, "ih") + self._product("r z", h, "hh")
        r, z = sigmoid(r), sigmoid(z)
        past = r * self._product("n", h, "hh") if self.reset_after else self._product("n", r * h, "hh")
        n = tanh(self._product("n", x, "ih") + past)
        return (1 - z) * n + z * h

    def _product(self, names: str, v: Any, side: str) -> Any:
        a = self.linear(names, v, matrix=side, bias=not self.layer_norm)
        together = f"norm_{side}" if names == "r z" else f"norm_{side}_n"
        return self.norm(names, a, together=together) if self.layer_norm else a
