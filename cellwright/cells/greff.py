"""The LSTM of Greff et al. 2015, from which single parts can be taken away."""

from typing import Any

from ..lang import Equations
from ..lang.functions import sigmoid, tanh


class GreffLSTM(Equations):
    """i, f = sigmoid(W x_t + b + R h_{t-1} + b' + p c_{t-1}),  o = sigmoid(... + p c_t),  the rest as in `LSTM`

    For: finding out which part of an LSTM a task needs.

    Shapes: x [I], h and c [H]; weight_ih = W [4H, I], weight_hh = R [4H, H], biases [4H], gates in the order i f g o;
    p_i, p_f, p_o [H]. A gate that is not there has no rows.

    Options (the paper's names in brackets):
        input_gate, forget_gate, output_gate: False: it is 1 [NIG, NFG, NOG].
        input_activation: False: g without tanh [NIAF].
        output_activation: False: h_t = o c_t [NOAF].
        peephole: False: no p [NP].
        full_gate_recurrence: i, f and o also see i, f and o of the step before, which are states then, through
            weight_from_i, weight_from_f, weight_from_o [3H, H], rows in the order i f o [FGR].

    The eighth variant [CIFG] is LSTM(peephole=True, coupled=True). Without any change it is LSTM(peephole=True).

    Source: K. Greff et al., "LSTM: a search space odyssey", 2015. In its printed equations too, o sees c_t and not
    c_{t-1}.
    """

    keeps = "f -i"
    input_gate = forget_gate = output_gate = input_activation = output_activation = peephole = True
    full_gate_recurrence = False

    @property
    def gates(self) -> list[str]:
        """The gates that are there."""
        there = {"i": self.input_gate, "f": self.forget_gate, "o": self.output_gate}
        return [name for name in there if there[name]]

    @property
    def states(self) -> list[str]:
        """h, the output, c, the cell state; with full gate recurrence also the gates."""
        return ["h", "c", *(self.gates if self.full_gate_recurrence else ())]

    def step(self, x: Any, h: Any, c: Any, *before: Any) -> Any:
        """One step: the next hidden state, cell state, and gates where these are states."""
        names = " ".join(n for n in "ifgo" if n == "g" or n in self.gates)
        a = dict(zip(names.split(), _members(self.linear(names, x) + self.linear(names, h)), strict=True))
        for source, value in zip(self.gates, before, strict=False):
            more = self.linear(" ".join(self.gates), value, matrix=f"from_{source}", bias=False)
            a |= {name: a[name] + m for name, m in zip(self.gates, _members(more), strict=True)}

        def gate(name: str, c: Any) -> Any:
            if name not in self.gates:
                return 1
            return sigmoid(a[name] + (self.scale(f"p_{name}", c) if self.peephole else 0))

        i, f = gate("i", c), gate("f", c)
        g = tanh(a["g"]) if self.input_activation else a["g"]
        c = c * f + g * i
        o = gate("o", c)
        h = (tanh(c) if self.output_activation else c) * o
        return h, c, *(v for name, v in zip("ifo", (i, f, o), strict=True) if name in self.gates and before)


def _members(group: Any) -> Any:
    return group if isinstance(group, tuple) else (group,)
