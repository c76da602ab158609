"""sLSTM, the scalar LSTM of xLSTM (Beck et al. 2024): exponential gates with a normaliser and a stabiliser."""

from typing import Any

from ..errors import OptionError
from ..lang import Equations
from ..lang.functions import exp, maximum, sigmoid, softplus, tanh, where


class SLSTM(Equations):
    """i = exp(i'), f, o = sigmoid(...), z = tanh(...),  c_t = f c_{t-1} + i z,  n_t = f n_{t-1} + i,  h_t = o c_t / n_t

    with i' = W x_t + b + R h_{t-1} + b'. As i can be beyond any number, the states hold c exp(-m) and n exp(-m) with
    the stabiliser m_t = max(log f + m_{t-1}, i'); h is the same for every m.

    For: revising what is stored: a large i' makes all that came before small, where an LSTM can only add to it.

    Shapes: x [I], h, c, n, m [H]; weight_ih = W [4H, I], weight_hh = R [4H, H / heads], biases [4H], order i f z o.

    Options:
        heads: blocks of units, each of which sees the h of its own block only. It must divide H.
        exp_forget: f = exp(f') in place of sigmoid(f').
        forget_bias: added to the initial bias of f.

    Source: M. Beck et al., "xLSTM: extended long short-term memory", NeurIPS 2024. As in its code, all states start at
    zero, and m_1 = i': whatever m was, there is nothing yet that it stands for. Its blocks also have convolutions,
    group norm and projections around this cell. Not to be confused with mLSTM, the matrix memory of the same paper.
    """

    states = "h c n m"
    auxiliary = "c n m"  # h is what the first two say together, and m is the scale of both
    heads = 1
    exp_forget = False
    forget_bias = 0.0

    def step(self, x: Any, h: Any, c: Any, n: Any, m: Any) -> Any:
        """One step: the output, and the next cell state, normaliser and stabiliser."""
        w = self.linear("i f z o", x, starts={"f": self.forget_bias})
        i, f, z, o = w + self.linear("i f z o", h, heads=self.heads)
        # Where nothing is stored yet, n is 0 and m means nothing: take i' for both.
        kept = where(n > 0, m + (f if self.exp_forget else -softplus(-f)), i)
        m = maximum(kept, i)
        i, f = exp(i - m), exp(kept - m)
        z, o = tanh(z), sigmoid(o)
        c = f * c + i * z
        n = f * n + i
        return o * c / n, c, n, m

    def check(self) -> None:
        """Heads that divide the units."""
        if self.heads < 1 or self.hidden_size % self.heads:
            raise OptionError(f"got heads={self.heads} with hidden_size={self.hidden_size}, expected a divisor of it")
