"""The sequential network of Jordan (1986), which remembers its outputs."""

from typing import Any

from ..errors import OptionError
from ..lang import ACTIVATIONS, Equations


class Jordan(Equations):
    """h_t = f(W x_t + b + R s_{t-1} + b'),  y_t = g(V h_t + b''),  s_t = decay s_{t-1} + y_t

    For: small nets whose memory is what they have said, as in control; comparisons with the origins.

    Shapes: x [I], y and s [O], h [H], which is no state; weight_ih = W [H, I], weight_hh = R [H, O],
    weight_ho = V [O, H], biases [H], [H] and [O].

    Options:
        output_size: O, the number of outputs y; 0: H.
        activation, output_activation: f and g, by their names in `cellwright.ACTIVATIONS`.
        decay: mu, how much of the earlier outputs stays in s; 0: s = y, and there is no state s.

    Source: M. I. Jordan, "Attractor dynamics and parallelism in a connectionist sequential machine", 1986. Not to be
    confused with Elman's net, which feeds back the hidden units h.
    """

    output_size = 0
    activation = "tanh"
    output_activation = "tanh"
    decay = 0.0

    @property
    def states(self) -> dict[str, str]:
        """y, the output, and s, where it is another value."""
        return dict.fromkeys(("y", "s") if self.decay else ("y",), "output_size" if self.output_size else "hidden_size")

    def step(self, x: Any, y: Any, s: Any = None) -> Any:
        """One step: the next output, and what is remembered of all outputs."""
        f, g = ACTIVATIONS[self.activation], ACTIVATIONS[self.output_activation]
        h = f(self.linear("h", x) + self.linear("h", s if self.decay else y))
        y = g(self.linear("y", h, matrix="ho", size=self.states["y"]))
        return (y, self.decay * s + y) if self.decay else y

    def check(self) -> None:
        """A size."""
        if self.output_size < 0:
            raise OptionError(f"got output_size={self.output_size}, expected a number of units, or 0 for hidden_size")
