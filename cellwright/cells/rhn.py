"""Recurrent highway network (Zilly et al. 2017): several highway layers within one step."""

from typing import Any

from ..errors import OptionError
from ..lang import Equations
from ..lang.functions import sigmoid, tanh


class RHN(Equations):
    """n = tanh(W x_t + R_l s_{l-1} + b),  t = sigmoid(...),  s_l = t n + (1 - t) s_{l-1}  for l = 1 ... depth

    with s_0 = h_{t-1} and h_t = s_depth.

    For: more computation per step, with a way through it that the gradient can take.

    Shapes: x [I], h [H]; weight_ih = W [2H, I] meets the first layer only, weight_hh = R_1 [2H, H], weight_hh_2 = R_2,
    ... likewise; biases [2H]; in the order n t.

    Options:
        depth: highway layers per step, each with a product that waits for the one before.
        coupled: False: a carry gate c = sigmoid(...) of its own in place of 1 - t; then n t c, [3H, ...].
        transform_bias: added to the initial bias of t in each layer; the paper starts below zero, mostly carrying.

    Source: J. G. Zilly et al., "Recurrent highway networks", ICML 2017. n, t, c are its h, t, c. Not to be confused
    with a stack of `depth` cells: the layers share one state, and only the first sees x.
    """

    states = "h"
    depth = 3
    coupled = True
    transform_bias = 0.0

    def step(self, x: Any, h: Any) -> Any:
        """One step: the next hidden state."""
        names, starts = "n t" if self.coupled else "n t c", {"t": self.transform_bias}
        for layer in range(1, self.depth + 1):
            if layer == 1:
                a = self.linear(names, x, starts=starts) + self.linear(names, h)
            else:
                a = self.linear(names, h, matrix=f"hh_{layer}", starts=starts if self.with_bias is True else None)
            n, t = tanh(a[0]), sigmoid(a[1])
            c = 1 - t if self.coupled else sigmoid(a[2])
            h = n * t + h * c
        return h

    def check(self) -> None:
        """At least one layer."""
        if self.depth < 1:
            raise OptionError(f"got depth={self.depth}, expected at least 1")
