"""Simple recurrent unit (Lei et al. 2018)."""

from typing import Any

from ..lang import ACTIVATIONS, Equations
from ..lang.functions import sigmoid


class SRU(Equations):
    """f, r = sigmoid(W x_t + b + v c_{t-1}),  z = W x_t,  c_t = f c_{t-1} + (1 - f) z,  h_t = r g(c_t) + (1 - r) x_t

    For: deep stacks at the speed of elementwise work: no step is a product, and x passes through to the next layer.

    Shapes: x [I], h and c [H]; weight_ih = W [3H, I] in the order z f r, bias_ih [2H] for f r, v_f and v_r [H]. Where
    I is not H, a fourth product p takes the place of x_t in h_t: weight_ih [4H, I].

    Options:
        activation: g, by its name in `cellwright.ACTIVATIONS`; the paper's last version has none, its first had tanh.

    Source: T. Lei et al., "Simple recurrent units for highly parallelizable recurrence", EMNLP 2018. The first version
    of the preprint (2017) has no v; set v_f and v_r to zero for it.
    """

    states = "h c"
    keeps = "f"
    activation = "identity"

    def step(self, x: Any, h: Any, c: Any) -> Any:
        """One step: the output and the next cell state; nothing is read from the output before."""
        z = self.linear("z", x, bias=False)
        f, r = self.linear("f r", x)
        f, r = sigmoid(f + self.scale("v_f", c)), sigmoid(r + self.scale("v_r", c))
        c = f * c + (1 - f) * z
        through = x if self.input_size == self.hidden_size else self.linear("p", x, bias=False)
        return r * ACTIVATIONS[self.activation](c) + (1 - r) * through, c
