"""Quasi-recurrent network (Bradbury et al. 2017): convolutions over time, and pooling as the only recurrence."""

from typing import Any

from ..errors import OptionError
from ..lang import Equations
from ..lang.functions import sigmoid, tanh

_GATES = {"f": "z f", "fo": "z f o", "ifo": "z f o i"}


class QRNN(Equations):
    """z = tanh(W x_t + W_1 x_{t-1} + b),  f, o = sigmoid(...),  c_t = f c_{t-1} + (1 - f) z,  h_t = o c_t

    For: long texts at the speed of elementwise work: all products are over all steps at once.

    Shapes: x [I], h and c [H]; weight_ih = W and weight_back_1 = W_1 [3H, I], bias_ih [3H], in the order z f o (i).

    Options:
        pooling: "f": h_t = f h_{t-1} + (1 - f) z, without c and o; "fo": as above; "ifo": i z in place of (1 - f) z.
        window: how many inputs the convolution sees, x_t and window - 1 before it; the paper's k, mostly 2.

    The state also holds products of earlier inputs: z_1 is W_1 x_t + z_2, which the next step adds to its W x; z_2 is
    W_2 x_t + z_3, and so on, likewise for each gate. Zeros stand for x before the first step, and after a reset.

    Source: J. Bradbury et al., "Quasi-recurrent neural networks", ICLR 2017. f is the share of the past.
    """

    keeps = "f -i"
    pooling = "fo"
    window = 2

    @property
    def states(self) -> list[str]:
        """h, c, and for each gate what earlier inputs give to the steps to come."""
        return ["h", *(["c"] if self.pooling != "f" else []), *self.auxiliary.split()]

    @property
    def auxiliary(self) -> str:
        """What earlier inputs give to the steps to come, by gate."""
        return " ".join(f"{gate}_{k}" for k in range(1, self.window) for gate in _GATES[self.pooling].split())

    def step(self, x: Any, h: Any, *others: Any) -> Any:
        """One step: the output, the next cell state, and what this input gives to later steps."""
        names = _GATES[self.pooling]
        c, back = (h, others) if self.pooling == "f" else (others[0], others[1:])
        width = len(names.split())
        later = [*back[width:], *[0.0] * width][: len(back)]
        given = [p for k in range(1, self.window) for p in self.linear(names, x, matrix=f"back_{k}", bias=False)]
        a = self.linear(names, x)
        z, f, *rest = (u + v for u, v in zip(a, back[:width], strict=True)) if back else a
        z, f = tanh(z), sigmoid(f)
        o, i = [*map(sigmoid, rest), *[None] * 2][:2]
        c = f * c + (1 - f if i is None else i) * z
        following = [u + v for u, v in zip(given, later, strict=True)]
        return (c, *following) if self.pooling == "f" else (o * c, c, *following)

    def check(self) -> None:
        """The pooling by its name, and a window."""
        if self.pooling not in _GATES:
            raise OptionError(f"got pooling={self.pooling!r}, expected one of {', '.join(_GATES)}")
        if self.window < 1:
            raise OptionError(f"got window={self.window}, expected at least 1")
