"""Long short-term memory (Hochreiter & Schmidhuber 1997) and its common variants."""

from typing import Any

from ..errors import OptionError
from ..lang import Equations
from ..lang.functions import clamp, sigmoid, tanh


class LSTM(Equations):
    """i, f, o = sigmoid(W x_t + b + R h_{t-1} + b'),  g = tanh(...),  c_t = f c_{t-1} + i g,  h_t = o tanh(c_t)

    For: what must be remembered over many steps; the cell to start with.

    Shapes: x [I], h and c [H]; weight_ih = W [4H, I], weight_hh = R [4H, H], biases [4H], gates in the order i f g o.

    Options:
        peephole: i and f also see c_{t-1}, o sees c_t, each through one weight per unit p_i, p_f, p_o [H]
            (Gers, Schraudolph & Schmidhuber 2002).
        coupled: i = 1 - f, and no weights for i: gates f g o (Greff et al. 2015, "CIFG").
        layer_norm: of W x_t and of R h_{t-1}, each over all gates together, and of c_t on its way to h_t, as Ba et al.
            2016 have it (TF1 normalises the sum, each gate by itself). Shifts take the place of the biases.
        forget_bias: added to the initial bias of the forget gate (Gers et al. 2000; Jozefowicz et al. 2015 advise 1).
            It is part of the weights; TF1 adds it at every call instead.
        proj_size: P > 0 makes h a projection weight_hr [P, H] of o tanh(c) (Sak et al. 2014).
        cell_clip: v > 0 limits c_t to [-v, v] before o and h_t see it, as TF1's LSTMCell does.

    Source: the forget gate is of Gers, Schmidhuber & Cummins 2000; the 1997 cell had none. Do not confuse the cell
    state c, which passes through time in a straight line, with the output h. `GreffLSTM` leaves out single parts.
    """

    keeps = "f -i"
    peephole = coupled = layer_norm = False
    forget_bias = cell_clip = 0.0
    proj_size = 0

    @property
    def states(self) -> dict[str, str]:
        """h, the output, and c, the cell state."""
        return {"h": "proj_size" if self.proj_size else "hidden_size", "c": "hidden_size"}

    def step(self, x: Any, h: Any, c: Any) -> Any:
        """One step: the next hidden state and cell state."""

        def peep(name: str, c: Any) -> Any:
            return self.scale(name, c) if self.peephole else 0

        gates, starts = "f g o" if self.coupled else "i f g o", {"f": self.forget_bias}
        if self.layer_norm:
            w = self.norm(gates, self.linear(gates, x, matrix="ih", bias=False), together="norm_ih", starts=starts)
            a = w + self.norm(gates, self.linear(gates, h, bias=False), together="norm_hh")
        else:
            a = self.linear(gates, x, matrix="ih", starts=starts) + self.linear(gates, h)
        if self.coupled:
            f = sigmoid(a[0] + peep("p_f", c))
            i = 1 - f
        else:
            i, f = sigmoid(a[0] + peep("p_i", c)), sigmoid(a[1] + peep("p_f", c))
        g = tanh(a[-2])
        c = f * c + i * g
        c = clamp(c, -self.cell_clip, self.cell_clip) if self.cell_clip else c
        o = sigmoid(a[-1] + peep("p_o", c))
        h = o * tanh(self.norm("norm_c", c) if self.layer_norm else c)
        if self.proj_size:
            h = self.linear("r", h, matrix="hr", size="proj_size", bias=False)
        return h, c

    def check(self) -> None:
        """Options that do not go together."""
        if self.forget_bias and not (self.with_bias or self.layer_norm):
            raise OptionError(f"got forget_bias={self.forget_bias} with bias=False, expected a bias to add it to")
        if self.proj_size < 0 or self.proj_size >= self.hidden_size:
            raise OptionError(
                f"got proj_size={self.proj_size} with hidden_size={self.hidden_size}, expected 0 or less than that"
            )
        if self.cell_clip < 0:
            raise OptionError(f"got cell_clip={self.cell_clip}, expected a limit above 0, or 0 for none")
