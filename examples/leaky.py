"""A cell of one's own: `cellwright train charlm TEXT --cell examples/leaky.py:Leaky --out RUN`."""

from cellwright import Cell, sigmoid, tanh


class Leaky(Cell):
    """Each unit learns how fast it forgets: h_t = (1 - a) h_{t-1} + a tanh(W x_t + R h_{t-1} + b)."""

    states = "h"

    def step(self, x, h):
        """One step."""
        a = sigmoid(self.bias("rate"))
        return (1 - a) * h + a * tanh(self.linear("n", x) + self.linear("n", h))
