"""Light gated recurrent unit (Ravanelli et al. 2018)."""

from typing import Any

from ..lang import Equations
from ..lang.functions import relu, sigmoid


class LiGRU(Equations):
    """z = sigmoid(W x_t + b + R h_{t-1} + b'),  n = relu(...),  h_t = z h_{t-1} + (1 - z) n

    For: speech; a GRU without a reset gate, whose relu needs the norm of W x_t to stay bounded.

    Shapes: x [I], h [H]; weight_ih = W [2H, I], weight_hh = R [2H, H], biases [2H], in the order z n.

    Options:
        layer_norm: of W x_t, over z and n together (Ba et al. 2016), in the place where the paper has batch norm. A
            batch norm is not part of the equations of one sequence, so it is not offered.

    Source: M. Ravanelli et al., "Light gated recurrent units for speech recognition", IEEE TETCI 2018.
    """

    states = "h"
    keeps = "z"
    layer_norm = False

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        w = self.linear("z n", x, bias=not self.layer_norm)
        z, n = (self.norm("z n", w, together="norm_ih") if self.layer_norm else w) + self.linear("z n", h)
        z, n = sigmoid(z), relu(n)
        return z * h + (1 - z) * n
